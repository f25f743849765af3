//! The negotiation, spoken in headers, beside a second reading of the RFC.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use http::{HeaderMap, header::SEC_WEBSOCKET_EXTENSIONS};
use proptest::prelude::*;

use super::*;
use crate::{
    Config,
    handshake::extensions::{Extensions, MAX_LENGTH, Offered, parse},
};

fn list(line: &str) -> Vec<Extension> {
    let mut headers = HeaderMap::new();
    headers.insert(SEC_WEBSOCKET_EXTENSIONS, line.parse().unwrap());
    parse(&headers).unwrap()
}

fn text(extensions: &Extensions) -> String {
    let value = extensions.header_value();
    value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

fn with(settings: &Deflate) -> Config {
    Config::new().deflate(settings.clone())
}

/// A server's answer, empty for none.
fn answer(offers: &str, settings: &Deflate) -> String {
    text(&Extensions::negotiate(&list(offers), &with(settings)).unwrap())
}

/// A client's judgement of an answer.
fn judge(settings: &Deflate, answered: &str) -> Result<Extensions, AnswerError> {
    Extensions::confirm(&Offered::new(&with(settings)), &list(answered))
}

fn bits(bits: u8) -> WindowBits {
    WindowBits::new(bits).unwrap()
}

/// Settings that wish for nothing.
fn open() -> Deflate {
    Deflate::new().peer_takeover(Takeover::Allowed)
}

#[test]
fn the_examples_of_the_rfc_are_answered_as_it_says() {
    let ten = open().own_window_bits(bits(10));
    let cases = [
        // RFC 7692 §7.1.1.1, §7.1.1.2, §7.1.2.1, §7.1.2.2.
        ("server_no_context_takeover", "server_no_context_takeover"),
        ("client_no_context_takeover", "client_no_context_takeover"),
        ("server_max_window_bits=10", "server_max_window_bits=10"),
        ("client_max_window_bits", ""),
        ("client_max_window_bits=10", "client_max_window_bits=10"),
        // §7.1.3.
        ("", ""),
        (
            "client_max_window_bits; server_max_window_bits=10",
            "server_max_window_bits=10",
        ),
        (
            "client_max_window_bits; server_max_window_bits=10, \
             permessage-deflate; client_max_window_bits",
            "server_max_window_bits=10",
        ),
        // "A server may reply with a smaller value".
        ("server_max_window_bits=12", "server_max_window_bits=12"),
        ("server_max_window_bits=\"10\"", "server_max_window_bits=10"),
        // An acceptance repeats it, whatever it says.
        ("server_max_window_bits=15", "server_max_window_bits=15"),
        // This says nothing that the client does not know.
        ("client_max_window_bits=15", ""),
    ];
    let element = |parameters: &str| match parameters {
        "" => NAME.to_owned(),
        parameters => format!("{NAME}; {parameters}"),
    };
    for (offer, expected) in cases {
        let offer = element(offer);
        assert_eq!(answer(&offer, &open()), element(expected), "{offer}");
    }
    assert_eq!(
        answer(&element("server_max_window_bits=12"), &ten),
        element("server_max_window_bits=10")
    );
    assert_eq!(answer(NAME, &ten), element("server_max_window_bits=10"));
    // RFC 6455 §9.1: what is not known is passed over.
    assert_eq!(answer("foo, permessage-bzip2; a=b, bar", &open()), "");
    let behind = "x-webkit-deflate-frame, permessage-deflate";
    assert_eq!(answer(behind, &open()), NAME);
}

#[test]
fn the_modes_of_autobahn_are_answered() {
    // Section 13: the parameters that the suite asks the server for.
    let offer = |no_takeover: bool, window_bits: u8| {
        let takeover = if no_takeover {
            "; server_no_context_takeover"
        } else {
            ""
        };
        let window = match window_bits {
            0 => String::new(),
            bits => format!("; server_max_window_bits={bits}"),
        };
        format!("{NAME}; client_no_context_takeover; client_max_window_bits{takeover}{window}")
    };
    let with_fallbacks =
        |window_bits| [offer(true, window_bits), offer(true, 0), offer(false, 0)].join(", ");
    let ours = "client_no_context_takeover";
    let both = "server_no_context_takeover; client_no_context_takeover";
    let cases = [
        ("13.1", offer(false, 0), ours.to_owned()),
        ("13.2", offer(true, 0), both.to_owned()),
        (
            "13.3",
            offer(false, 9),
            format!("{ours}; server_max_window_bits=9"),
        ),
        (
            "13.4",
            offer(false, 15),
            format!("{ours}; server_max_window_bits=15"),
        ),
        (
            "13.5",
            offer(true, 9),
            format!("{both}; server_max_window_bits=9"),
        ),
        (
            "13.6",
            offer(true, 15),
            format!("{both}; server_max_window_bits=15"),
        ),
        (
            "13.7",
            with_fallbacks(9),
            format!("{both}; server_max_window_bits=9"),
        ),
        ("13.7, with 8", with_fallbacks(8), both.to_owned()),
    ];
    for (mode, offers, expected) in cases {
        let expected = format!("{NAME}; {expected}");
        for settings in [Deflate::new(), open()] {
            assert_eq!(answer(&offers, &settings), expected, "{mode}");
        }
    }
    // 8 bits without an alternative.
    assert_eq!(answer(&offer(false, 8), &Deflate::new()), "");
    assert_eq!(answer(&offer(true, 8), &Deflate::new()), "");
}

#[test]
fn real_clients_and_the_defaults_agree() {
    let firefox = "permessage-deflate";
    let chrome = "permessage-deflate; client_max_window_bits";
    let none_kept = "permessage-deflate; client_no_context_takeover";
    assert_eq!(answer(firefox, &Deflate::new()), none_kept);
    assert_eq!(answer(chrome, &Deflate::new()), none_kept);
    assert_eq!(text_of_offer(&Deflate::new()), chrome);
    // A smaller window of the peer: only who lets himself be asked is asked.
    let small = Deflate::new().peer_window_bits(bits(10));
    assert_eq!(answer(firefox, &small), none_kept);
    assert_eq!(
        answer(chrome, &small),
        format!("{none_kept}; client_max_window_bits=10")
    );
}

fn text_of_offer(settings: &Deflate) -> String {
    let value = Offered::new(&with(settings)).header_value().unwrap();
    value.to_str().unwrap().to_owned()
}

#[test]
fn an_offer_says_what_the_settings_ask_for() {
    let base = Deflate::new();
    let cases = [
        (base.clone(), "client_max_window_bits"),
        (
            base.clone().own_window_bits(bits(9)),
            "client_max_window_bits=9",
        ),
        (
            base.clone().peer_window_bits(bits(12)),
            "server_max_window_bits=12; client_max_window_bits",
        ),
        (
            base.clone().own_takeover(Takeover::Forbidden),
            "client_no_context_takeover; client_max_window_bits",
        ),
        (
            base.peer_takeover(Takeover::Forbidden),
            "server_no_context_takeover; client_max_window_bits",
        ),
    ];
    for (settings, expected) in cases {
        assert_eq!(text_of_offer(&settings), format!("{NAME}; {expected}"));
    }
}

const ILLEGAL: &[&str] = &[
    "unknown",
    "server_max_window_bits",
    "server_max_window_bits=7",
    "server_max_window_bits=16",
    "server_max_window_bits=010",
    "server_max_window_bits=08",
    "server_max_window_bits=+9",
    "server_max_window_bits=-9",
    "server_max_window_bits=1e1",
    "server_max_window_bits=265",
    "server_max_window_bits=4294967305",
    "server_max_window_bits=x",
    "client_max_window_bits=7",
    "client_max_window_bits=16",
    "client_max_window_bits=09",
    "client_max_window_bits=\"16\"",
    "server_no_context_takeover=true",
    "server_no_context_takeover=\"1\"",
    "client_no_context_takeover=0",
    "Server_no_context_takeover",
    "server_no_context_takeover; server_no_context_takeover",
    "client_no_context_takeover; client_no_context_takeover",
    "server_max_window_bits=10; server_max_window_bits=10",
    "server_max_window_bits=15; client_max_window_bits; server_max_window_bits=9",
    "client_max_window_bits; client_max_window_bits",
    "client_max_window_bits; client_max_window_bits=9",
    "client_max_window_bits=9; client_max_window_bits=9",
];

#[test]
fn an_offer_that_is_not_in_order_is_declined_and_the_next_one_taken() {
    for parameters in ILLEGAL {
        let bad = format!("{NAME}; {parameters}");
        assert_eq!(answer(&bad, &open()), "", "{bad}");
        let good = format!("{bad}, {NAME}; server_no_context_takeover, {NAME}");
        let expected = format!("{NAME}; server_no_context_takeover");
        assert_eq!(answer(&good, &open()), expected, "{bad}");
    }
}

#[test]
fn offers_are_taken_in_order_over_all_lines() {
    let mut headers = HeaderMap::new();
    for line in [
        "foo, permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=11; bar",
        "permessage-deflate; server_max_window_bits=12",
        "permessage-deflate",
    ] {
        headers.append(SEC_WEBSOCKET_EXTENSIONS, line.parse().unwrap());
    }
    let agreed = Extensions::negotiate(&parse(&headers).unwrap(), &with(&open()));
    assert_eq!(
        agreed.unwrap().header_value().unwrap(),
        "permessage-deflate; server_max_window_bits=12"
    );
}

#[test]
fn an_answer_that_is_not_in_order_fails_and_names_the_parameter() {
    use ParameterProblem as Problem;
    let base = Deflate::new();
    let asking = open()
        .peer_window_bits(bits(10))
        .peer_takeover(Takeover::Forbidden);
    let (takeover, window) = (SERVER_NO_CONTEXT_TAKEOVER, SERVER_MAX_WINDOW_BITS);
    let cases = [
        (&base, "foo", "foo", Problem::Unknown),
        (
            &base,
            "client_max_window_bits",
            "client_max_window_bits",
            Problem::Value,
        ),
        (&base, "server_max_window_bits=016", window, Problem::Value),
        (
            &base,
            "server_no_context_takeover; server_no_context_takeover",
            takeover,
            Problem::Repeated,
        ),
        (
            &asking,
            "server_max_window_bits=10",
            takeover,
            Problem::Missing,
        ),
        (
            &asking,
            "server_no_context_takeover",
            window,
            Problem::Missing,
        ),
        (
            &asking,
            "server_no_context_takeover; server_max_window_bits=11",
            window,
            Problem::TooLarge,
        ),
    ];
    for (settings, parameters, parameter, problem) in cases {
        let answered = format!("{NAME}; {parameters}");
        let error = judge(settings, &answered).unwrap_err();
        assert!(error.to_string().contains(&answered), "{error}");
        let expected = AnswerError::Parameter {
            extension: answered,
            parameter: parameter.into(),
            problem,
        };
        assert_eq!(error, expected);
    }
    for parameters in ILLEGAL {
        assert!(judge(&base, &format!("{NAME}; {parameters}")).is_err());
    }
    let twice = "permessage-deflate, permessage-deflate; client_no_context_takeover";
    let again = "permessage-deflate; client_no_context_takeover";
    assert_eq!(
        judge(&base, twice),
        Err(AnswerError::Repeated(again.into()))
    );
    assert_eq!(
        judge(&base, "permessage-deflate, mux"),
        Err(AnswerError::NotOffered("mux".into()))
    );
    let long = format!("{NAME}; {}", "a".repeat(MAX_LENGTH - 100));
    assert!(judge(&base, &long).unwrap_err().to_string().len() < 400);
}

#[test]
fn a_limit_that_was_not_offered_is_refused() {
    let answered = list("permessage-deflate; client_max_window_bits=12");
    let answered = DeflateParameters::read(&answered[0], Role::Server).unwrap();
    let offered = DeflateParameters {
        client_max_window_bits: None,
        ..offer(&Deflate::new())
    };
    assert_eq!(
        offered.agree(answered),
        Err((CLIENT_MAX_WINDOW_BITS, ParameterProblem::NotOffered))
    );
}

#[test]
fn a_client_keeps_to_its_own_window_whatever_the_answer() {
    let twelve = open().own_window_bits(bits(12));
    let cases = [("", 12), ("=9", 9), ("=12", 12), ("=15", 12)];
    for (value, expected) in cases {
        let answered = match value {
            "" => NAME.to_owned(),
            value => format!("{NAME}; client_max_window_bits{value}"),
        };
        let agreed = judge(&twelve, &answered).unwrap();
        let own = agreed.deflate().unwrap().own_window_bits(Role::Client);
        assert_eq!(own, Some(bits(expected)), "{answered}");
    }
}

#[test]
fn a_window_of_256_bytes_is_inflated_but_not_compressed_with() {
    let agreed = judge(&open(), "permessage-deflate; client_max_window_bits=8").unwrap();
    let parameters = agreed.deflate().unwrap();
    assert_eq!(parameters.own_window_bits(Role::Client), None);
    let agreed = judge(&open(), "permessage-deflate; server_max_window_bits=8").unwrap();
    let parameters = agreed.deflate().unwrap();
    assert_eq!(parameters.peer_window_bits(Role::Client), WindowBits::MIN);
    // A client that says it will stay within 256 bytes is held to it.
    let offer = "permessage-deflate; client_max_window_bits=8";
    assert_eq!(answer(offer, &open()), offer);
}

#[test]
fn what_is_required_is_missed() {
    let required = Deflate::new().required();
    for offers in ["", "mux", "permessage-deflate; server_max_window_bits=8"] {
        let missing = Extensions::negotiate(&list(offers), &with(&required)).unwrap_err();
        assert_eq!(missing.name(), NAME);
        assert!(missing.to_string().contains(NAME));
    }
    assert!(Extensions::negotiate(&list(NAME), &with(&required)).is_ok());
    assert_eq!(judge(&required, ""), Err(AnswerError::Required(NAME)));
    assert!(judge(&required, NAME).is_ok());
    assert!(judge(&Deflate::new(), "").unwrap().is_none());
}

/// One element, read once more from RFC 7692 §7.1, by other means than the code above.
#[derive(Clone, Copy)]
struct Said {
    server_no_takeover: bool,
    client_no_takeover: bool,
    server_bits: Option<u8>,
    client_bits: Bits,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bits {
    Absent,
    WithoutValue,
    Value(u8),
}

fn said(element: &str) -> Option<Said> {
    let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
    assert_eq!(name, NAME);
    let mut values = BTreeMap::new();
    for parameter in parameters.split(';').map(str::trim) {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (parameter, None),
        };
        if !name.is_empty() && values.insert(name, value).is_some() {
            return None;
        }
    }
    let number = |value: &str| {
        let number: u8 = value.parse().ok()?;
        ((8..=15).contains(&number) && number.to_string() == value).then_some(number)
    };
    let flag = |value: Option<Option<&str>>| match value {
        None => Some(false),
        Some(None) => Some(true),
        Some(Some(_)) => None,
    };
    let said = Said {
        server_no_takeover: flag(values.remove("server_no_context_takeover"))?,
        client_no_takeover: flag(values.remove("client_no_context_takeover"))?,
        server_bits: match values.remove("server_max_window_bits") {
            None => None,
            Some(value) => Some(number(value?)?),
        },
        client_bits: match values.remove("client_max_window_bits") {
            None => Bits::Absent,
            Some(None) => Bits::WithoutValue,
            Some(Some(value)) => Bits::Value(number(value)?),
        },
    };
    values.is_empty().then_some(said)
}

/// Whether an answer is one that the RFC allows to this offer.
fn is_legal(offer: Said, answer: Said) -> bool {
    let server_bits = match (offer.server_bits, answer.server_bits) {
        (Some(asked), Some(answered)) => answered <= asked,
        (Some(_), None) => false,
        (None, _) => true,
    };
    let client_bits = match answer.client_bits {
        Bits::Absent => true,
        Bits::WithoutValue => false,
        Bits::Value(_) => offer.client_bits != Bits::Absent,
    };
    server_bits && client_bits && (answer.server_no_takeover || !offer.server_no_takeover)
}

/// Each parameter absent or present, without a value and with those around the range.
fn every_element() -> Vec<String> {
    let windows = |name: &str| -> Vec<String> {
        let values = (7..=17).map(|bits| format!("; {name}={bits}"));
        [String::new(), format!("; {name}")]
            .into_iter()
            .chain(values)
            .collect()
    };
    let flags = |name: &str| [String::new(), format!("; {name}")];
    let mut elements = Vec::new();
    for server_no in flags(SERVER_NO_CONTEXT_TAKEOVER) {
        for client_no in flags(CLIENT_NO_CONTEXT_TAKEOVER) {
            for server_max in windows(SERVER_MAX_WINDOW_BITS) {
                for client_max in windows(CLIENT_MAX_WINDOW_BITS) {
                    // The order says nothing.
                    elements.push(format!(
                        "{NAME}{client_max}{server_no}{server_max}{client_no}"
                    ));
                }
            }
        }
    }
    elements
}

fn every_setting(windows: &[u8]) -> Vec<Deflate> {
    let takeover = [Takeover::Allowed, Takeover::Forbidden];
    let mut settings = Vec::new();
    for own in windows {
        for peer in windows {
            for own_takeover in takeover {
                for peer_takeover in [None, Some(takeover[0]), Some(takeover[1])] {
                    let deflate = Deflate::new()
                        .own_window_bits(bits(*own))
                        .peer_window_bits(bits(*peer))
                        .own_takeover(own_takeover)
                        .peer_takeover(peer_takeover);
                    settings.push(deflate);
                }
            }
        }
    }
    settings
}

#[test]
fn every_offer_is_answered_as_the_rfc_allows_and_the_settings_ask() {
    let settings = every_setting(&[9, 10, 14, 15]);
    for element in every_element() {
        let offers = list(&element);
        let offer = said(&element);
        for settings in &settings {
            let agreed = negotiate(&offers, settings).unwrap();
            let offer = match (offer, agreed) {
                (None, None) => continue,
                (Some(offer), None) => {
                    assert_eq!(offer.server_bits, Some(8), "{element} was declined");
                    continue;
                }
                (offer, Some(_)) => offer.expect("an offer that is not in order is declined"),
            };
            let agreed = agreed.unwrap();
            let text = agreed.to_string();
            let answer = said(&text).expect("an answer is in order");
            assert!(is_legal(offer, answer), "{element}: {text}");

            // The settings are kept.
            let (own, peer) = (settings.own_window_bits, settings.peer_window_bits);
            assert!(agreed.own_window_bits(Role::Server).unwrap() <= own);
            if offer.client_bits != Bits::Absent {
                assert!(agreed.peer_window_bits(Role::Server) <= peer);
            }
            if settings.own_takeover == Takeover::Forbidden {
                assert!(answer.server_no_takeover);
            }
            if settings.peer_takeover != Some(Takeover::Allowed) {
                assert!(answer.client_no_takeover);
            }
            // No more is said than has to be.
            assert_ne!(answer.client_bits, Bits::Value(15));
            assert!(answer.server_bits != Some(15) || offer.server_bits == Some(15));
        }
    }
}

#[test]
fn every_answer_is_judged_as_the_rfc_does() {
    let settings = every_setting(&[9, 10, 14, 15]);
    for element in every_element() {
        let answered = list(&element);
        for settings in &settings {
            let offer = said(&offer(settings).to_string()).unwrap();
            let legal = said(&element).is_some_and(|answer| is_legal(offer, answer));
            let agreed = confirm(settings, &answered);
            assert_eq!(agreed.is_ok(), legal, "{settings:?}: {element}");
            let Ok(Some(agreed)) = agreed else { continue };
            if let Some(own) = agreed.own_window_bits(Role::Client) {
                assert!(own <= settings.own_window_bits);
            }
            assert!(agreed.peer_window_bits(Role::Client) <= settings.peer_window_bits);
            if settings.own_takeover == Takeover::Forbidden {
                assert_eq!(agreed.own_takeover(Role::Client), Takeover::Forbidden);
            }
            if settings.peer_takeover == Some(Takeover::Forbidden) {
                assert_eq!(agreed.peer_takeover(Role::Client), Takeover::Forbidden);
            }
        }
    }
}

#[test]
fn every_client_of_ours_agrees_with_every_server_of_ours() {
    let settings = every_setting(&[9, 10, 12, 15]);
    for client in &settings {
        let offered = Offered::new(&with(client));
        let offers = list(offered.header_value().unwrap().to_str().unwrap());
        for server in &settings {
            let accepted = Extensions::negotiate(&offers, &with(server)).unwrap();
            let answered = list(&text(&accepted));
            assert_eq!(
                Extensions::confirm(&offered, &answered),
                Ok(accepted.clone())
            );
            let agreed = accepted.deflate().unwrap();
            for (role, settings) in [(Role::Client, client), (Role::Server, server)] {
                let other = other(role);
                let own = agreed.own_window_bits(role).unwrap();
                assert!(own <= settings.own_window_bits);
                assert_eq!(agreed.peer_window_bits(other), own);
                assert!(agreed.peer_window_bits(role) <= settings.peer_window_bits);
                assert_eq!(agreed.own_takeover(role), agreed.peer_takeover(other));
            }
        }
    }
}

#[test]
fn hostile_offers_cost_time_in_proportion_to_their_size() {
    // As much as is read of a head, and each offer fails at its last parameter.
    let offer = format!("{NAME}; client_max_window_bits=10; x,");
    let line = offer.repeat(MAX_LENGTH / offer.len());
    let mut headers = HeaderMap::new();
    headers.insert(SEC_WEBSOCKET_EXTENSIONS, line.parse().unwrap());
    let start = Instant::now();
    for _ in 0..1000 {
        let offers = parse(&headers).unwrap_or_default();
        assert!(negotiate(&offers, &Deflate::new()).unwrap().is_none());
    }
    assert!(start.elapsed() < Duration::from_secs(60));
}

proptest! {
    #[test]
    fn any_header_is_answered_or_passed_over(
        name in "permessage-deflate|[a-z]{1,4}",
        parameters in prop::collection::vec(
            ("(server|client)_(no_context_takeover|max_window_bits)|[a-z]{1,3}", "(=\"?[0-9]{0,3}\"?)?|[!-~]{0,4}"),
            0..6,
        ),
        noise in "[ -~]{0,12}",
    ) {
        let mut line = name;
        for (parameter, value) in parameters {
            line = format!("{line}; {parameter}{value}");
        }
        for line in [line.clone(), format!("{line}, {NAME}"), format!("{line}{noise}")] {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, line.parse().unwrap());
            let Ok(list) = parse(&headers) else { continue };
            for settings in [Deflate::new(), open().required()] {
                if let Ok(agreed) = Extensions::negotiate(&list, &with(&settings)) {
                    let offer = list.iter().find(|offer| {
                        offer.name() == NAME && said(&offer.to_string()).is_some_and(|said| {
                            said.server_bits != Some(8)
                        })
                    });
                    prop_assert_eq!(agreed.is_none(), offer.is_none());
                }
                if let Err(error) = Extensions::confirm(&Offered::new(&with(&settings)), &list) {
                    prop_assert_eq!(error.to_string().lines().count(), 1);
                }
            }
        }
    }
}
