/** @import {Manifest, Codec} from "pushlet-provider" */
import { endpoints, exchange, field, invalid, json, option, outcomeOf, secret, segment, utf8 } from "pushlet-provider";

/** @type {Manifest} */
export const manifest = {
  describe() {
    return {
      name: "chat",
      title: "Chat",
      vendor: "example",
      version: "1",
      description: "Posts a notification to a room.",
      alsoAnswers: [],
      settings: [],
      credentials: [secret("token", "chat_token", "The token of the robot.")],
      options: [field("silent", "boolean", "Without a sound.")],
      targetOptions: [],
      environments: ["production", "development"],
      targets: ["device"],
      endpoints: endpoints("api", "https://chat.example", "https://dev.chat.example"),
      targetsPerExchange: 1,
      targetsPerCall: 500,
      responseHeaders: ["retry-after"],
      entropy: 0,
      examples: [{
        settings: [], credential: "token", notification: '{"title":"Hello","body":"World"}', target: "room-1",
        targetOptions: [],
      }],
    };
  },
};

/** @type {Codec} */
export const codec = {
  checkApplication() {},

  encode(context, application, notification, recipients) {
    const { alert } = notification;
    const body = { title: alert?.title, text: alert?.body, silent: option(notification, "silent") };
    /** @type {import("pushlet-provider").Encoded} */
    const encoded = { messages: [], exchanges: [], refusals: [] };
    recipients.forEach(({ target }, place) => {
      if (target.tag === "device" && target.val.length <= 100) {
        encoded.exchanges.push(exchange([place], `/rooms/${segment(target.val)}`));
      } else {
        const rejection = invalid("device_token", "a room has at most 100 characters");
        encoded.refusals.push({ covers: [place], rejection });
      }
    });
    if (encoded.exchanges.length) {
      encoded.messages.push({
        endpoint: "api", method: "post", headers: [["content-type", "application/json"]],
        body: utf8(JSON.stringify(body)), authenticate: true,
      });
    }
    return encoded;
  },

  decode(context, application, answers) {
    return answers.map(({ targets, response }) => {
      const { error } = json(response.body);
      const code = typeof error === "string" ? error : undefined;
      return { outcomes: targets.map(() => outcomeOf(response, context.now, { code })), native: undefined };
    });
  },
};
