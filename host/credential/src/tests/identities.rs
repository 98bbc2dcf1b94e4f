use super::*;

const UNREADABLE_P12: &str =
    "could not process apns_p12 certificate, check that it is in p12 format and is valid";
const UNREADABLE_PEM: &str =
    "could not process apns_pem certificate, check that it is in pem format and is valid";

fn p12(file: &[u8], password: Option<&str>) -> Result<Option<Credential>, CredentialError> {
    let mut fields = vec![("apns_p12", file)];
    fields.extend(password.map(|password| ("apns_p12_pass", password.as_bytes())));
    parse(&[certificate_kind()], &fields)
}

fn why_not(file: &[u8], password: Option<&str>) -> String {
    let error = p12(file, password).err().expect("it was accepted");
    assert_eq!(error.code, "invalid_apns_p12");
    assert_eq!(error.field, "apns_p12");
    error.message
}

/// Every encryption that programs have used, each with a password, and each MAC.
#[test]
fn reads_pkcs12_of_every_encryption() {
    let workshop = Workshop::new();
    workshop.identity(RSA);
    let variants = [
        "",
        "-legacy",
        "-legacy -descert",
        "-legacy -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-RC2-40 -macalg sha1",
        "-legacy -keypbe PBE-SHA1-RC2-128 -certpbe PBE-SHA1-RC2-128 -macalg sha1",
        "-keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha256",
        "-keypbe AES-128-CBC -certpbe AES-192-CBC -macalg sha512",
        "-keypbe AES-256-CBC -certpbe AES-256-CBC -macalg sha384 -iter 10000",
        "-keypbe NONE -certpbe NONE",
        "-keypbe NONE -certpbe AES-256-CBC",
        "-keypbe AES-256-CBC -certpbe NONE",
        "-keypbe DES-EDE3-CBC -certpbe DES-EDE3-CBC",
        "-nomac",
        "-nomac -certpbe AES-256-CBC",
        "-legacy -nomac -certpbe PBE-SHA1-RC2-40",
        "-noiter -nomaciter",
    ];
    let expected = fingerprint(&workshop);
    for variant in variants {
        workshop.openssl(&format!(
            "pkcs12 -export {variant} -inkey key.pem -in cert.pem -certfile ca.pem -out id.p12 -passout pass:püß☃word"
        ));
        let file = workshop.read("id.p12");
        let credential = p12(&file, Some("püß☃word")).unwrap_or_else(|error| panic!("{variant}: {error}"));
        let credential = credential.unwrap();
        assert_eq!(credential.summary().fingerprint, Some(expected.clone()), "{variant}");
        assert_eq!(credential.client_certificate().unwrap().key.cert.len(), 2, "{variant}: leaf and issuer");
        let message = why_not(&file, Some("wrong"));
        assert_eq!(message, format!("{UNREADABLE_P12}: wrong password"), "{variant}");
        let message = why_not(&file, None);
        assert_eq!(message, format!("{UNREADABLE_P12}: it needs a password, given as apns_p12_pass"));
    }
}

#[test]
fn reads_pkcs12_without_password() {
    let workshop = Workshop::new();
    workshop.identity(EC);
    for variant in ["", "-legacy", "-nomac", "-keypbe NONE -certpbe NONE"] {
        workshop.openssl(&format!(
            "pkcs12 -export {variant} -inkey key.pem -in cert.pem -out id.p12 -passout pass:''"
        ));
        let file = workshop.read("id.p12");
        for password in [None, Some("")] {
            let credential = p12(&file, password).unwrap_or_else(|error| panic!("{variant}: {error}"));
            assert_eq!(credential.unwrap().summary().fingerprint, Some(fingerprint(&workshop)));
        }
    }
}

/// Files of other programs: Java's keytool, today and with its legacy algorithms (RC2-40 and 3DES, as
/// old exports of Apple's keychain have them), and one whose MAC is made with no password at all
/// instead of an empty one.
#[test]
fn reads_pkcs12_of_other_programs() {
    // In December 2026, when all of them are valid.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_500_000);
    let java = Some("com.example.java");
    let files: [(&[u8], &str, Option<&str>); 3] = [
        (include_bytes!("fixtures/keytool.p12"), "changeit", java),
        (include_bytes!("fixtures/keytool-legacy.p12"), "changeit", java),
        (include_bytes!("fixtures/null-password.p12"), "", None),
    ];
    for (file, password, uid) in files {
        let fields = uploads(&[("apns_p12", file), ("apns_p12_pass", password.as_bytes())]);
        let credential =
            Credential::parse(&[certificate_kind()], &fields, &production(now)).unwrap().unwrap();
        let setting = "apns_topic".to_owned();
        let derived = credential.derive(&Derivation { setting, property: Property::CertificateSubjectUid });
        assert_eq!(derived.as_deref(), uid);
    }
}

#[test]
fn reads_certificates_in_any_order() {
    let workshop = Workshop::new();
    workshop.identity(EC);
    workshop.write(
        "all.pem",
        [workshop.read("ca.pem"), workshop.read("key.pem"), workshop.read("cert.pem")].concat(),
    );
    let credential = accept(&[certificate_kind()], &[("apns_pem", &workshop.read("all.pem"))]);
    assert_eq!(credential.summary().fingerprint, Some(fingerprint(&workshop)));
    let chain = &credential.client_certificate().unwrap().key.cert;
    assert_eq!(chain[0].as_ref(), workshop.openssl("x509 -in cert.pem -outform DER"));
    assert_eq!(chain[1].as_ref(), workshop.openssl("x509 -in ca.pem -outform DER"));
}

#[test]
fn says_what_is_wrong_with_a_pkcs12_file() {
    let workshop = Workshop::new();
    workshop.identity(EC);
    let export = |arguments: &str| {
        workshop.openssl(&format!("pkcs12 -export {arguments} -out id.p12 -passout pass:secret"));
        workshop.read("id.p12")
    };
    assert_eq!(why_not(b"garbage", None), UNREADABLE_P12);
    assert_eq!(why_not(&workshop.read("cert.pem"), None), UNREADABLE_P12);
    let whole = export("-inkey key.pem -in cert.pem");
    assert_eq!(why_not(&whole[..whole.len() / 2], Some("secret")), UNREADABLE_P12);
    let no_certificate = export("-nocerts -inkey key.pem");
    assert_eq!(
        why_not(&no_certificate, Some("secret")),
        format!("{UNREADABLE_P12}: it holds no certificate")
    );
    let no_key = export("-nokeys -in cert.pem");
    assert_eq!(why_not(&no_key, Some("secret")), format!("{UNREADABLE_P12}: it holds no private key"));
    assert_eq!(why_not(&vec![0x30; 300_000], None), format!("{UNREADABLE_P12}: it is larger than 256 KiB"));
    let mut password = Vec::from("secret");
    password.push(0xff);
    let error = refuse(&[certificate_kind()], &[("apns_p12", &whole), ("apns_p12_pass", &password)]);
    assert_eq!(error.message, format!("{UNREADABLE_P12}: its password is not UTF-8"));
}

#[test]
fn checks_the_validity_of_the_certificate() {
    let workshop = Workshop::new();
    workshop.identity(EC);
    workshop.openssl("pkcs12 -export -inkey key.pem -in cert.pem -out id.p12 -passout pass:''");
    let file = workshop.read("id.p12");
    let at = |days: i64| {
        let step = Duration::from_secs(days.unsigned_abs() * 86_400);
        let now = if days < 0 { SystemTime::now() - step } else { SystemTime::now() + step };
        Credential::parse(&[certificate_kind()], &uploads(&[("apns_p12", &file)]), &production(now))
    };
    assert!(at(364).is_ok());
    let end =
        String::from_utf8(workshop.openssl("x509 -in cert.pem -noout -enddate -dateopt iso_8601")).unwrap();
    let (date, time) = end.trim().trim_start_matches("notAfter=").split_once(' ').unwrap();
    let error = at(366).err().unwrap();
    assert_eq!(error.message, format!("{UNREADABLE_P12}: the certificate expired on {date}"));
    let error = at(-2).err().unwrap();
    assert!(error.message.contains(": the certificate is not valid before "), "{error}");
    assert_eq!(at(0).unwrap().unwrap().summary().not_after, Some(format!("{date}T{time}")));
}

#[test]
fn finds_the_key_that_does_not_match() {
    let workshop = Workshop::new();
    workshop.identity(EC);
    workshop.openssl(&format!("genpkey {EC} -out other.pem"));
    let file = [workshop.read("cert.pem"), workshop.read("other.pem")].concat();
    let error = refuse(&[certificate_kind()], &[("apns_pem", &file)]);
    assert_eq!(error.code, "invalid_apns_pem");
    assert_eq!(error.message, format!("{UNREADABLE_PEM}: the private key does not match the certificate"));
}

/// Each form in which `openssl` has written private keys.
#[test]
fn reads_pem_keys_of_every_form() {
    let workshop = Workshop::new();
    for key in [RSA, EC, "-algorithm EC -pkeyopt ec_paramgen_curve:P-384", "-algorithm ED25519"] {
        workshop.identity(key);
        let mut forms = vec![
            ("pkey -in key.pem -out form.pem", None),
            ("pkcs8 -topk8 -in key.pem -out form.pem -passout pass:secret", Some("secret")),
            (
                "pkcs8 -topk8 -v2 des3 -v2prf hmacWithSHA1 -in key.pem -out form.pem -passout pass:secret",
                Some("secret"),
            ),
            (
                "pkcs8 -topk8 -v2 aes128 -v2prf hmacWithSHA512 -in key.pem -out form.pem -passout pass:secret",
                Some("secret"),
            ),
            ("pkcs8 -topk8 -v1 PBE-SHA1-3DES -in key.pem -out form.pem -passout pass:secret", Some("secret")),
            ("pkcs8 -topk8 -scrypt -in key.pem -out form.pem -passout pass:secret", Some("secret")),
        ];
        if !key.contains("ED25519") {
            forms.push(("pkey -traditional -in key.pem -out form.pem", None));
            for form in [
                "pkey -traditional -des3 -in key.pem -out form.pem -passout pass:secret",
                "pkey -traditional -aes128 -in key.pem -out form.pem -passout pass:secret",
                "pkey -traditional -aes192 -in key.pem -out form.pem -passout pass:secret",
                "pkey -traditional -aes256 -in key.pem -out form.pem -passout pass:secret",
            ] {
                forms.push((form, Some("secret")));
            }
        }
        for (form, password) in forms {
            workshop.openssl(form);
            let attributes = b"Bag Attributes\n    friendlyName: Apple Push\n".to_vec();
            let file = [attributes.clone(), workshop.read("form.pem"), attributes, workshop.read("cert.pem")]
                .concat();
            let mut fields = vec![("apns_pem", file.as_slice())];
            fields.extend(password.map(|password: &str| ("apns_p12_pass", password.as_bytes())));
            let credential = accept(&[certificate_kind()], &fields);
            assert_eq!(credential.summary().fingerprint, Some(fingerprint(&workshop)), "{form}");
            if password.is_some() {
                fields[1].1 = b"wrong";
                let error = refuse(&[certificate_kind()], &fields);
                assert_eq!(error.message, format!("{UNREADABLE_PEM}: wrong password"), "{form}");
            }
        }
    }
}

#[test]
fn says_what_is_wrong_with_a_pem_file() {
    let workshop = Workshop::new();
    workshop.identity(RSA);
    let why = |file: &[u8]| {
        let message = refuse(&[certificate_kind()], &[("apns_pem", file)]).message;
        message.strip_prefix(UNREADABLE_PEM).unwrap().trim_start_matches(": ").to_owned()
    };
    let certificate = workshop.read("cert.pem");
    assert_eq!(why(b"garbage"), "it holds no certificate");
    assert_eq!(why(&[0x30, 0x82, 0xff]), "");
    assert_eq!(why(&certificate), "it holds no private key");
    assert_eq!(why(&workshop.read("key.pem")), "it holds no certificate");
    assert_eq!(why(&certificate[..certificate.len() - 30]), "one of its sections has no end line");
    workshop.openssl("pkey -traditional -aes256 -in key.pem -out old.pem -passout pass:secret");
    let old = [certificate.clone(), workshop.read("old.pem")].concat();
    assert_eq!(why(&old), "it needs a password, given as apns_p12_pass");
    let old = String::from_utf8(old).unwrap();
    assert_eq!(
        why(old.replace("AES-256-CBC", "CAMELLIA-256-CBC").as_bytes()),
        "its key is encrypted with an algorithm that is not supported (CAMELLIA-256-CBC)"
    );
    assert_eq!(why(old.replace("AES-256-CBC,", "AES-256-CBC,zz").as_bytes()), "");
    workshop.identity("-algorithm RSA -pkeyopt rsa_keygen_bits:1024");
    let short = why(&[workshop.read("cert.pem"), workshop.read("key.pem")].concat());
    assert_eq!(short, "its RSA key is too short; at least 2048 bits are needed");
    workshop.identity("-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1");
    let curve = why(&[workshop.read("cert.pem"), workshop.read("key.pem")].concat());
    assert_eq!(curve, "its EC key is on a curve that is not supported; P-256 and P-384 are");
}

/// A file can ask for years of key derivation; it is refused before any of it is done.
#[test]
fn refuses_costly_key_derivation() {
    let workshop = Workshop::new();
    workshop.identity(EC);
    // DER of the INTEGERs 70,000 and 8,388,607.
    let (count, raised) = ([0x02, 0x03, 0x01, 0x11, 0x70], [0x02, 0x03, 0x7f, 0xff, 0xff]);
    for (variant, counts) in [
        ("-nomac -certpbe AES-256-CBC", 2),
        ("-legacy -nomac -certpbe PBE-SHA1-RC2-40", 2),
        ("-keypbe NONE -certpbe NONE", 1),
    ] {
        workshop.openssl(&format!(
            "pkcs12 -export -iter 70000 {variant} -inkey key.pem -in cert.pem -out id.p12 -passout pass:secret"
        ));
        let file = workshop.read("id.p12");
        let places: Vec<_> = (0..=file.len() - 5).filter(|place| file[*place..place + 5] == count).collect();
        assert_eq!(places.len(), counts, "{variant}");
        for place in places {
            let mut file = file.clone();
            file.splice(place..place + 5, raised);
            let why = why_not(&file, Some("secret"));
            let expected = "its key derivation asks for too many iterations";
            assert_eq!(why, format!("{UNREADABLE_P12}: {expected}"), "{variant}");
        }
    }
}

#[test]
fn refuses_key_derivation_that_needs_much_memory() {
    use base64::Engine;
    let workshop = Workshop::new();
    workshop.identity(EC);
    workshop.openssl("pkcs8 -topk8 -scrypt -in key.pem -outform DER -out form.der -passout pass:secret");
    let mut key = workshop.read("form.der");
    // N = 16384 and r = 8; r becomes 127.
    let place = key.windows(7).position(|bytes| bytes == [0x02, 0x02, 0x40, 0x00, 0x02, 0x01, 0x08]).unwrap();
    key[place + 6] = 0x7f;
    let key = base64::engine::general_purpose::STANDARD.encode(key);
    let key = format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\n{key}\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let file = [key.into_bytes(), workshop.read("cert.pem")].concat();
    let error = refuse(&[certificate_kind()], &[("apns_pem", &file), ("apns_p12_pass", b"secret")]);
    assert_eq!(error.message, format!("{UNREADABLE_PEM}: its key derivation asks for too much memory"));
}

#[test]
fn prefers_the_renewed_certificate_of_a_key() {
    let workshop = Workshop::new();
    workshop.identity(EC);
    let old = workshop.read("cert.pem");
    workshop.openssl("x509 -req -in cert.csr -CA ca.pem -CAkey ca.key -out cert.pem -days 700");
    for certificates in [[old.clone(), workshop.read("cert.pem")], [workshop.read("cert.pem"), old]] {
        let file = [workshop.read("key.pem"), certificates.concat()].concat();
        let credential = accept(&[certificate_kind()], &[("apns_pem", &file)]);
        assert_eq!(credential.summary().fingerprint, Some(fingerprint(&workshop)));
    }
}

/// A certificate as Apple makes them: UID in the subject, marks, and the list of topics.
#[test]
fn reads_what_apple_writes_into_certificates() {
    let workshop = Workshop::new();
    workshop.identity(EC);
    workshop.write(
        "apple.cnf",
        "1.2.840.113635.100.6.3.1=ASN1:NULL\n1.2.840.113635.100.6.3.2=ASN1:NULL\n\
         1.2.840.113635.100.6.3.6=ASN1:SEQUENCE:topics\n\
         [topics]\n1=UTF8:com.example.app\n2=SEQUENCE:app\n3=UTF8:com.example.app.voip\n4=SEQUENCE:voip\n\
         [app]\n1=UTF8:app\n[voip]\n1=UTF8:voip\n",
    );
    workshop.openssl(
        "x509 -req -in cert.csr -CA ca.pem -CAkey ca.key -out cert.pem -days 365 -extfile apple.cnf",
    );
    let file = [workshop.read("key.pem"), workshop.read("cert.pem")].concat();
    let credential = accept(&[certificate_kind()], &[("apns_pem", &file)]);
    let derive = |property| credential.derive(&Derivation { setting: "apns_topic".to_owned(), property });
    assert_eq!(derive(Property::CertificateSubjectUid), Some("com.example.app".to_owned()));
    let topics = "com.example.app,com.example.app.voip";
    assert_eq!(derive(Property::CertificateTopics), Some(topics.to_owned()));
    assert_eq!(derive(Property::ServiceAccountProperty("project_id".to_owned())), None);
    let summary = credential.summary();
    assert_eq!(summary.topics, ["com.example.app", "com.example.app.voip"]);
    assert_eq!(summary.environments, ["development", "production"]);
    assert_eq!(summary.subject.as_deref(), Some("Push"));
}

#[test]
fn takes_the_first_secret_that_was_given() {
    let workshop = Workshop::new();
    workshop.identity(EC);
    let pem = [workshop.read("key.pem"), workshop.read("cert.pem")].concat();
    let kinds = [certificate_kind(), token_kind()];
    assert!(parse(&kinds, &[]).unwrap().is_none());
    assert!(parse(&kinds, &[("apns_p12", b""), ("apns_p12_pass", b"secret")]).unwrap().is_none());
    let credential = accept(&kinds, &[("apns_p8", b"garbage"), ("apns_p12", b""), ("apns_pem", &pem)]);
    assert_eq!(credential.kind(), "certificate");
    assert_eq!(credential.summary().field, "apns_pem");
    let error = refuse(&kinds, &[("apns_pem", &pem), ("apns_p12", b"garbage")]);
    assert_eq!(error.field, "apns_p12");
    let fields: Vec<_> = upload_fields(&kinds).collect();
    assert_eq!(fields, ["apns_p12", "apns_p12_pass", "apns_pem", "apns_p12_pass", "apns_p8"]);
}

fn fingerprint(workshop: &Workshop) -> String {
    let text = workshop.openssl("x509 -in cert.pem -noout -fingerprint -sha256");
    let text = String::from_utf8(text).unwrap();
    text.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase()
}
