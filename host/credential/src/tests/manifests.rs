use super::*;

/// A sound credential, what is made wrong in it, and what is said about it.
type Case = (fn() -> CredentialKind, fn(&mut CredentialKind), &'static str);

fn signed(kind: &mut CredentialKind) -> &mut SignedToken {
    match &mut kind.authentication {
        Authentication::SignedToken((token, _)) => token,
        _ => panic!("not signed"),
    }
}

fn placement(kind: &mut CredentialKind) -> &mut Placement {
    match &mut kind.authentication {
        Authentication::SignedToken((_, place))
        | Authentication::ExchangedToken((_, place))
        | Authentication::Secret((_, place)) => place,
        _ => panic!("no header"),
    }
}

#[test]
fn accepts_what_real_services_need() {
    check_manifest(&[certificate_kind(), token_kind(), account_kind(), key_kind()]).unwrap();
}

#[test]
fn refuses_what_the_host_cannot_serve() {
    let cases: [Case; 19] = [
        (token_kind, |kind| kind.name.clear(), "its name is not a name"),
        (token_kind, |kind| kind.secrets.clear(), "it has no secrets, or too many"),
        (token_kind, |kind| kind.secrets[0].name = "a\r\nb".to_owned(), "the name of a secret is not a name"),
        (
            token_kind,
            |kind| kind.secrets[0].password = Some(String::new()),
            "the name of a password is not a name",
        ),
        (
            token_kind,
            |kind| kind.secrets[0].format = SecretFormat::Text,
            "the format of a secret does not fit the authentication",
        ),
        (certificate_kind, |kind| kind.secrets[1].name = "apns_p12".to_owned(), "a secret is there twice"),
        (
            token_kind,
            |kind| signed(kind).key = "other".to_owned(),
            "the key of its token is not one of its secrets",
        ),
        (
            token_kind,
            |kind| signed(kind).header.push(("alg".to_owned(), Source::IssuedAt)),
            "alg is the host's to set",
        ),
        (
            token_kind,
            |kind| signed(kind).claims = vec![("a".to_owned(), Source::IssuedAt); 17],
            "its token has too many claims",
        ),
        (token_kind, |kind| signed(kind).claims[0].0.clear(), "a claim has no sound name"),
        (
            token_kind,
            |kind| signed(kind).claims[0].1 = Source::Literal("{".to_owned()),
            "a literal is not JSON, or too long",
        ),
        (
            token_kind,
            |kind| signed(kind).claims[0].1 = Source::Literal(format!("\"{}\"", "a".repeat(2000))),
            "a literal is not JSON, or too long",
        ),
        (
            account_kind,
            |kind| match &mut kind.authentication {
                Authentication::ExchangedToken((exchange, _)) => {
                    let property = ("fcm_service_account".to_owned(), "private_key".to_owned());
                    exchange.token_url = vec![Source::SecretProperty(property)];
                }
                _ => panic!("not exchanged"),
            },
            "a property is not one of its secrets'",
        ),
        (
            account_kind,
            |kind| match &mut kind.authentication {
                Authentication::ExchangedToken((exchange, _)) => {
                    exchange.token_url = vec![Source::Literal("\"http://example.com/\"".to_owned())];
                }
                _ => panic!("not exchanged"),
            },
            "its token URL is not the https URL of an endpoint",
        ),
        (
            token_kind,
            |kind| signed(kind).lifetime = 59_999,
            "the lifetime of its token is not between a minute and a day",
        ),
        (
            token_kind,
            |kind| signed(kind).lifetime = u64::MAX,
            "the lifetime of its token is not between a minute and a day",
        ),
        (
            token_kind,
            |kind| signed(kind).minimum_age = minutes(51),
            "the minimum age of its token is more than its lifetime",
        ),
        (
            key_kind,
            |kind| placement(kind).prefix = "key=\r\n".to_owned(),
            "the prefix of its header makes no header value",
        ),
        (
            key_kind,
            |kind| kind.authentication = Authentication::Secret(("other".to_owned(), place(""))),
            "the secret of its header is not one of its secrets",
        ),
    ];
    for (make, change, expected) in cases {
        let mut kind = make();
        change(&mut kind);
        let error = check_manifest(&[kind]).err().unwrap_or_else(|| panic!("accepted: {expected}"));
        assert_eq!(error.message, expected);
    }
    let twice = check_manifest(&[token_kind(), token_kind()]).unwrap_err();
    assert_eq!(twice.to_string(), "credential token: its name is used twice");
    assert!(check_manifest(&vec![token_kind(); 17]).is_err());
}
