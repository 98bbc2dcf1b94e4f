// The contract of provider.wit as JavaScript sees it, and the helpers of index.js.

/** Which of the service's two worlds an application lives in. */
export type Environment = "production" | "development";

/**
 * All that a call may know of the world around it. The WASI clocks stand still at `now`,
 * and WASI randomness is seeded from `entropy`.
 */
export interface Context {
  now: number;
  /** Fresh random bytes, as many per target as the manifest asks for; target i owns slice i. */
  entropy: Uint8Array;
}

/** One registered application, without its secrets. */
export interface Application {
  id: string;
  environment: Environment;
  /**
   * The manifest's settings that the application has: given at registration, or read by the host
   * from the credential (see `manifest.derivation`).
   */
  settings: [string, string][];
  /** Which of the manifest's credentials the application holds. */
  credential?: string | undefined;
}

/** A text that the device looks up in its own tables. */
export interface Localized {
  key: string;
  arguments: string[];
}

/** What the user sees. */
export interface Alert {
  title?: string | undefined;
  subtitle?: string | undefined;
  body?: string | undefined;
  /** URL of a picture. */
  image?: string | undefined;
  titleLocalized?: Localized | undefined;
  subtitleLocalized?: Localized | undefined;
  bodyLocalized?: Localized | undefined;
}

/** A sound that overrides silent mode; `volume` is 0 to 1. */
export interface CriticalSound {
  name: string;
  volume: number;
}

/** What is heard: the system's sound, one of the app by its file name, or one that cannot be muted. */
export type Sound =
  | { tag: "default" }
  | { tag: "named", val: string }
  | { tag: "critical", val: CriticalSound };

/** `high`: at once, waking the device; `normal`: when it suits the device; `low`: never wake it. */
export type Priority = "low" | "normal" | "high";

/** Who shall receive it. A provider says in its manifest which kinds it knows. */
export type Target =
  /** A device token or registration id. */
  | { tag: "device", val: string }
  /** A topic that devices subscribe to, by its bare name. */
  | { tag: "topic", val: string }
  /** A logical expression over topics. */
  | { tag: "condition", val: string }
  /** A broadcast channel. */
  | { tag: "channel", val: string }
  /** The URL of a subscription. The keys that its encryption needs are options of the recipient. */
  | { tag: "url", val: string };

/** A target, and what belongs to this target alone. */
export interface Recipient {
  target: Target;
  /** Fields of the manifest's `target-options`, each a JSON value. */
  options: [string, string][];
}

/** What every push service has in some form; the rest comes in `options`, `data` and `native`. */
export interface Notification {
  alert?: Alert | undefined;
  /** The number on the app's icon; 0 removes it. */
  badge?: number | undefined;
  sound?: Sound | undefined;
  /** The kind of the notification, which chooses its action buttons. */
  category?: string | undefined;
  /** Notifications with the same thread are grouped on the device. */
  thread?: string | undefined;
  /** A JSON object for the app. */
  data?: string | undefined;
  /** A later notification with the same key replaces an earlier one. */
  collapseKey?: string | undefined;
  /** Seconds for which the service may keep it; 0: deliver now or never. */
  timeToLive?: number | undefined;
  priority?: Priority | undefined;
  /** The caller's own id of this message. */
  identifier?: string | undefined;
  /** Fields that this provider's manifest declares, each a JSON value. */
  options: [string, string][];
  /** A raw payload in the service's own terms; it wins over what the other fields would give. */
  native?: string | undefined;
}

/** One thing that is wrong with the input. */
export interface Fault {
  /** `snake_case`. */
  code: string;
  message: string;
  /** The field that is wrong, as the caller named it. */
  field?: string | undefined;
}

/** Why this provider will not take the input: the caller must act. */
export interface Rejection {
  /** `snake_case`. */
  code: string;
  message: string;
  /** The field that is wrong, as the caller named it. */
  field?: string | undefined;
  /** What else is wrong, where several fields are. */
  more: Fault[];
}

/** Who is being slowed down. */
export type Scope = "target" | "application" | "provider";

/** For whom it is too fast, and how long to wait if the service says so. */
export interface Throttle {
  scope: Scope;
  retryAfter?: number | undefined;
}

/**
 * `expired`: a token that was good has aged; the host mints or fetches one anew, once.
 * `refused`: the operator must act.
 */
export type CredentialFault = "expired" | "refused";

/** What became of one target, sorted by who must act. */
export type Disposition =
  /** The service accepted it. */
  | { tag: "delivered" }
  /** The token is dead, since when if the service says so: drop it. */
  | { tag: "unregistered", val: number | undefined }
  /** Accepted, and the token has a successor: store it. */
  | { tag: "replaced", val: string }
  /** The message or the token is wrong: do not send it again as it is. */
  | { tag: "rejected" }
  /** The credential is refused. */
  | { tag: "credential-rejected", val: CredentialFault }
  /** Too fast: for whom, and how long to wait. */
  | { tag: "throttled", val: Throttle }
  /** The service is in trouble: wait this long, if it says so. */
  | { tag: "unavailable", val: number | undefined }
  /** The answer cannot be understood: it may or may not have arrived. */
  | { tag: "unknown" };

/** What the host must do with the connection after an answer. */
export type ConnectionHint = "keep" | "close";

/** What the service said of one target. */
export interface Outcome {
  disposition: Disposition;
  /** The service's id of the message. */
  id?: string | undefined;
  /** The service's own reason, as it stands on the wire; an open set. */
  code?: string | undefined;
  /** What it means, for people. */
  message?: string | undefined;
  connection: ConnectionHint;
}

/** How a field's value is written: in a form as text, in JSON as the type of that name. */
export type ValueKind = "text" | "integer" | "number" | "boolean" | "json";

/**
 * A setting of an application, or an option of a notification or of a target. The host refuses a value that
 * breaks these rules before it calls the codec.
 */
export interface Field {
  name: string;
  kind: ValueKind;
  /** It must be given: a setting with each application, an option with each notification or target. */
  required: boolean;
  /** The only values allowed; empty: any. */
  choices: string[];
  /** What holds if it is not given. The host shows it; the component applies it. */
  default?: string | undefined;
  /** The least number allowed. */
  minimum?: number | undefined;
  /** The greatest number allowed. */
  maximum?: number | undefined;
  /** Most bytes of a text, or of a JSON value as text. */
  maxLength?: number | undefined;
  /** What a number counts, such as `s`. */
  unit?: string | undefined;
  description: string;
}

/** How a secret is written when it is uploaded. The host parses and keeps it. */
export type SecretFormat = "pkcs12-identity" | "pem-identity" | "pkcs8-key" | "p256-key" | "service-account" | "text";

export interface Secret {
  /** The name of the upload field; a wrong value is reported as `invalid_{name}`. */
  name: string;
  format: SecretFormat;
  /** The upload field that holds its password, where it may have one. */
  password?: string | undefined;
  description: string;
}

/** A setting that the host reads from the credential when the caller did not give it. */
export type Property =
  /** The UID in the certificate's subject: the topic of an Apple push certificate. */
  | { tag: "certificate-subject-uid" }
  /** The topics of Apple's extension 1.2.840.113635.100.6.3.6, joined with commas. */
  | { tag: "certificate-topics" }
  /** A top-level text property of a service account file. */
  | { tag: "service-account-property", val: string }
  /** The public key of a P-256 key: its uncompressed point in base64url, as browsers take it. */
  | { tag: "public-key" };

/** The setting, and where the host finds its value. */
export interface Derivation {
  setting: string;
  property: Property;
}

/** RFC 7518 section 3.1. */
export type SigningAlgorithm = "es256" | "rs256" | "ps256";

/** A value in a token's header or claims, or of a request for a token. */
export type Source =
  | { tag: "literal", val: string }
  | { tag: "setting", val: string }
  /** (secret, top-level text property) of a service account file. */
  | { tag: "secret-property", val: [string, string] }
  /** Seconds since the epoch. */
  | { tag: "issued-at" }
  /** Seconds since the epoch. */
  | { tag: "expires-at" }
  | { tag: "unique-id" }
  /** `https://host[:port]` of the exchange (RFC 8292 `aud`). */
  | { tag: "target-origin" };

/** A JWT that the host signs (RFC 7519); `alg` is added to its header. */
export interface SignedToken {
  /** The secret that holds the key. */
  key: string;
  algorithm: SigningAlgorithm;
  header: [string, Source][];
  claims: [string, Source][];
  lifetime: number;
  /** A new one is never minted sooner than this after the last. */
  minimumAge: number;
}

/** What a composed text is made of. */
export type Part =
  | { tag: "literal", val: string }
  | { tag: "setting", val: string }
  /** The setting, percent-encoded (RFC 3986: all but the unreserved characters). */
  | { tag: "encoded-setting", val: string }
  /** A secret of the format `text`. */
  | { tag: "secret", val: string }
  /** Seconds since the epoch. All times of one request are the same. */
  | { tag: "seconds" }
  /** Milliseconds since the epoch. */
  | { tag: "milliseconds" }
  /** Seconds since the epoch, this long from now. */
  | { tag: "seconds-after", val: number }
  /** A random UUID, the same in all of one request. It changes with every try. */
  | { tag: "unique-id" }
  /** The value of a header that the component wrote; an identifier that must stay when a push is tried again. */
  | { tag: "header", val: string }
  /** The request's path and query, as the component wrote them. */
  | { tag: "path" }
  /** The request's body, as the component wrote it. */
  | { tag: "body" }
  /** The fields of a form body, decoded, sorted by name, each `name=value`, joined by this text. */
  | { tag: "form-fields", val: string }
  /** The composition's digest. */
  | { tag: "digest" };

/** How bytes become text: as they are, or encoded. `base64-percent`: base64, then percent-encoded. */
export type Encoding = "plain" | "hex" | "base64" | "base64url" | "base64-percent";

/** `md5` and `sha1` are there for the services that demand them. The `hmac` cases need a key. */
export type DigestAlgorithm = "md5" | "sha1" | "sha256" | "hmac-sha1" | "hmac-sha256";

export interface Digest {
  algorithm: DigestAlgorithm;
  /** The secret that is the key of an HMAC. */
  key?: string | undefined;
  /** How the secret writes the key: `plain`, `hex` or `base64`. A prefix `whsec_` (Standard Webhooks) is left out. */
  keyEncoding: Encoding;
  /** Any part but `digest`. */
  parts: Part[];
  /** Stands between the parts. */
  join: string;
  encoding: Encoding;
}

/** Parts, one after the other, and how the whole is encoded. */
export interface ComposedText {
  parts: Part[];
  encoding: Encoding;
}

/**
 * Where a secret, a token or a composed text goes. The component leaves the place free: what it writes there
 * makes its answer invalid.
 */
export type Place =
  /** A lower-case name. */
  | { tag: "header", val: string }
  /** This text, which stands once in the path that the component wrote, is replaced by the value, percent-encoded. */
  | { tag: "path", val: string }
  /** A parameter of the query. */
  | { tag: "query", val: string }
  /** A field of a body of the type `application/x-www-form-urlencoded`. */
  | { tag: "form-field", val: string }
  /** A top-level member of a JSON object in the body. */
  | { tag: "json-field", val: string };

/** `prefix`, then the token, secret or composed text. */
export interface Placement {
  place: Place;
  prefix: string;
}

/** One digest, and texts that are made of it and of other parts, each in its place. */
export interface Composition {
  digest?: Digest | undefined;
  texts: [ComposedText, Placement][];
}

/**
 * How a client shows its id and secret to a token endpoint (RFC 6749 section 2.3.1): as fields of the form, or
 * as HTTP Basic in a header.
 */
export type ClientAuthentication = "body" | "basic";

/** RFC 6749 section 4.4. */
export interface ClientCredentials {
  id: Source;
  secret: string;
  authentication: ClientAuthentication;
}

export type BodyFormat = "form" | "json";

/** A member of a request for a token; in JSON it is a text, or a number if `number` is set. */
export interface RequestField {
  name: string;
  value: ComposedText;
  number: boolean;
}

/** A request for a token of a vendor's own kind. Paths into the answer are names joined by dots. */
export interface TokenRequest {
  format: BodyFormat;
  fields: RequestField[];
  digest?: Digest | undefined;
  /** The path of the token. */
  token: string;
  /** The path of its lifetime in seconds, if the answer has one. */
  expiresIn?: string | undefined;
  /** The lifetime otherwise. */
  lifetime: number;
  /** A path and its value, as text, without which the answer is a refusal. */
  success?: [string, string] | undefined;
}

/** What is given to the token endpoint for an access token. */
export type Grant =
  /** RFC 7523 section 2.1. */
  | { tag: "jwt-bearer", val: SignedToken }
  | { tag: "client-credentials", val: ClientCredentials }
  | { tag: "custom", val: TokenRequest };

/** An access token that the host fetches and caches, one request at a time (RFC 6749). */
export interface TokenExchange {
  /**
   * An https URL, its pieces one after the other. Where there are several, the first is a literal with the whole
   * origin and the slash after it, and the others are percent-encoded. Where the operator sends an endpoint of the
   * same origin elsewhere, tokens are fetched there too.
   */
  tokenUrl: Source[];
  scope?: string | undefined;
  grant: Grant;
  /**
   * Fetch a new one this long before the old one ends. A token is never used in the last 30 seconds of its life,
   * or the last tenth if that is shorter.
   */
  refreshBefore: number;
  /** A token that the service calls expired is fetched again only if it is older than this; at least 30 seconds. */
  minimumAge: number;
}

/** How an exchange shows whose it is. The host does it; the component only says which exchange needs it. */
export type Authentication =
  /** TLS client certificate: chosen per connection. */
  | { tag: "client-certificate" }
  /** A JWT that the host mints itself. */
  | { tag: "signed-token", val: [SignedToken, Placement] }
  /** An access token that the host fetches. */
  | { tag: "exchanged-token", val: [TokenExchange, Placement] }
  /** The named secret as it is. */
  | { tag: "secret", val: [string, Placement] }
  /** Its secrets of the format `text` are written into the stream where the component says so (`session.chunk`). */
  | { tag: "in-stream" }
  /** Texts made of secrets, settings, the time and the request: HTTP Basic, signatures. */
  | { tag: "composed", val: Composition }
  /** RFC 8292: one token per origin, and the public key beside it. */
  | { tag: "vapid", val: SignedToken };

/** One way to authenticate, and what it needs. */
export interface Credential {
  name: string;
  /** Alternatives: an application gives one of these, and the first that it gives counts. */
  secrets: Secret[];
  /** Secrets of the format `text` that are needed as well. */
  companions: Secret[];
  authentication: Authentication;
  /** Settings without which it is incomplete. */
  requiredSettings: string[];
  derivations: Derivation[];
  /** May also come with a single send instead of a registration (`gcm_api_key`). */
  inline: boolean;
  /** Settings that, beside the credential, decide which connections may be shared. */
  connectionSettings: string[];
}

/** What is spoken with an endpoint. */
export type Transport = "http2" | "https" | "tls";

/** Where an endpoint is. */
export type Origin =
  /** `https://host[:port]`, without a path; for `tls` the port must be there. */
  | { tag: "fixed", val: string }
  /** The origin of each exchange's `url`, if the host finds it harmless. */
  | { tag: "any-https" }
  /** Wherever the operator's configuration says; until then the provider cannot be used. */
  | { tag: "configured" };

/**
 * One server of the service in one environment, by a name that exchanges refer to; the list is all
 * that the host connects to.
 */
export interface Endpoint {
  name: string;
  environment: Environment;
  transport: Transport;
  origin: Origin;
}

/** The cases of `types.target`. */
export type TargetKind = "device" | "topic" | "condition" | "channel" | "url";

/** A notification that the provider can encode, in the JSON form of the HTTP API. */
export interface Example {
  settings: [string, string][];
  credential?: string | undefined;
  notification: string;
  target: string;
  /** Options of the target, each a JSON value. */
  targetOptions: [string, string][];
}

/** All that the host knows of a provider before it calls the codec. */
export interface ProviderManifest {
  /** Lower-case name, the `type` of a request. */
  name: string;
  title: string;
  /** Whose service it is: `apple`, `google`. */
  vendor: string;
  version: string;
  description: string;
  /** Other `type`s that its applications answer to, with their input and the shape of their answers. */
  alsoAnswers: string[];
  settings: Field[];
  /** Alternatives; an application holds one. Empty: none is needed. */
  credentials: Credential[];
  /**
   * Boolean options of the names `validate_only` and `dry_run` ask the service to check a notification and to
   * deliver nothing: what it accepts then counts as `valid`, not as `delivered`.
   */
  options: Field[];
  targets: TargetKind[];
  /** Options of each target, such as the keys of a subscription. */
  targetOptions: Field[];
  /**
   * The service's worlds. `production` is one of them; without `development` no application can be registered
   * for it.
   */
  environments: Environment[];
  /** Each name is there for each of `environments`. */
  endpoints: Endpoint[];
  /** Most targets that one exchange may cover. */
  targetsPerExchange: number;
  /**
   * Most targets that one call of `encode` is given; at least `targets-per-exchange`. The host may give fewer, to a
   * component that is slow above all.
   */
  targetsPerCall: number;
  /** Lower-case names of the headers that `decode` reads; it is shown no others. */
  responseHeaders: string[];
  /** Random bytes needed per target. */
  entropy: number;
  examples: Example[];
}

/** RFC 9110 section 9. */
export type Method = "get" | "post" | "put" | "delete";

/** What the requests of many targets have in common. */
export interface Message {
  /** The name of one of the manifest's endpoints. */
  endpoint: string;
  method: Method;
  /**
   * Lower-case names. Authority, credential and framing are the host's: `authorization`, `host`,
   * `content-length`, `connection`, `transfer-encoding` and pseudo-headers make the answer invalid.
   */
  headers: [string, string][];
  body: Uint8Array;
  /** Shall the host add the application's credential? */
  authenticate: boolean;
}

/** One HTTP request that the host shall make. */
export interface Exchange {
  /** Indices into `recipients`. Every target is covered once: by an exchange or by a refusal. */
  covers: number[];
  /** Index into `messages`. */
  message: number;
  /** The URL of the target, for an `any-https` endpoint; `path` is not used then. */
  url?: string | undefined;
  path: string;
  /** Beside those of the message. */
  headers: [string, string][];
  /** Does the service recognise a second delivery of the same request? */
  idempotent: boolean;
}

/** Targets that get no request, and why. */
export interface Refusal {
  covers: number[];
  rejection: Rejection;
}

/** All requests of one call: shared parts, and what differs by target. */
export interface Encoded {
  messages: Message[];
  exchanges: Exchange[];
  refusals: Refusal[];
}

/**
 * What came back over HTTP: the headers that the manifest names, and a body that the host has bounded.
 * A status of 0: the service closed the connection without an answer, and the body is
 * `{"reason": "…"}` with what it gave as its reason (the debug data of GOAWAY, RFC 9113 section 6.8).
 */
export interface Response {
  status: number;
  headers: [string, string][];
  body: Uint8Array;
}

/** A response and the targets that its exchange covered, in the exchange's order. */
export interface Answer {
  targets: Target[];
  response: Response;
}

export interface Reply {
  /** One for each target of the answer, in its order. */
  outcomes: Outcome[];
  /** The service's answer in the shape that a classic caller expects, where there is one. */
  native?: string | undefined;
}

/** What a provider exports as `manifest`. */
export interface Manifest {
  describe(): ProviderManifest;
}

/** What a provider exports as `codec`. A `Rejection` that is thrown by `checkApplication` refuses the application. */
export interface Codec {
  checkApplication(application: Application): void;
  encode(context: Context, application: Application, notification: Notification, recipients: Recipient[]): Encoded;
  decode(context: Context, application: Application, answers: Answer[], native: boolean): Reply[];
}

export function field(name: string, kind: ValueKind, description: string, more?: Partial<Field>): Field;
export function endpoints(name: string, production: string, development?: string): Endpoint[];
export function secret(
  name: string, secretName: string, description: string, header?: string, prefix?: string,
): Credential;
export function setting(application: Pick<Application, "settings">, name: string): string | undefined;
export function option(of: Pick<Recipient, "options">, name: string): unknown;
export function invalid(field: string, message: string): Rejection;
export function exchange(
  covers: number[], path: string,
  more?: { message?: number; headers?: [string, string][]; idempotent?: boolean },
): Exchange;
export function segment(text: string): string;

/** What an outcome says beside its disposition. */
export interface Told {
  id?: string;
  code?: string;
  message?: string;
  connection?: ConnectionHint;
}
export function outcome(disposition: Disposition, told?: Told): Outcome;
export function delivered(id?: string): Outcome;
export function outcomeOf(response: Response, now: number, more?: Told & { gone?: number[] }): Outcome;
export function header(response: Pick<Response, "headers">, name: string): string | undefined;
export function retryAfter(response: Pick<Response, "headers">, now: number): number | undefined;
export function json(bytes: Uint8Array): Record<string, unknown>;
export function utf8(text: string): Uint8Array;
export function text(bytes: Uint8Array): string;
