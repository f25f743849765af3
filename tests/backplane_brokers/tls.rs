//! Brokers over TLS: a private authority, a client's certificate, and servers that are not whom
//! they should be.

use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair};
use ws_tower::hub::backplane::{Nats, Redis};

use super::{
    log,
    server::{Kind, Node, Server, three, until},
};

/// An authority that nobody else knows.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, as PEM.
struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    fn certify(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        Identity {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

async fn works(mut nodes: [Node; 3]) {
    nodes[0].hub.publish("lobby", "0 0");
    for node in &mut nodes {
        assert_eq!(node.read_until([1, 0, 0]).await, ([1, 0, 0], 0));
    }
}

async fn is_refused(node: Node) {
    until("it has tried", || node.stats().failed_connects >= 2).await;
    assert_eq!(node.stats().connected, 0);
    let said = log::said();
    assert!(said.contains("the hub cannot reach its broker"), "{said}");
    assert!(said.to_lowercase().contains("certificate"), "{said}");
}

mod redis {
    use ::redis::{Client, ClientTlsConfig, TlsCertificates};

    use super::*;
    use crate::server::write;

    /// A server with a certificate for this name. It asks clients for one.
    async fn server(authority: &Authority, name: &str) -> Server {
        let own = authority.certify(name);
        Server::start_with(Kind::Redis, |directory, port| {
            let file = |name: &str, text: &str| write(directory, name, text);
            let certificate = file("own.pem", &own.certificate);
            let (key, ca) = (file("own.key", &own.key), file("ca.pem", &authority.pem));
            let port = port.to_string();
            [
                ["--port", "0"],
                ["--tls-port", &port],
                ["--tls-cert-file", &certificate],
                ["--tls-key-file", &key],
                ["--tls-ca-cert-file", &ca],
            ]
            .concat()
            .into_iter()
            .map(Into::into)
            .collect()
        })
        .await
    }

    fn broker(server: &Server, trusts: &Authority, shows: Option<Identity>) -> Redis {
        let url = server.url().replace("redis://", "rediss://");
        let client_tls = shows.map(|it| ClientTlsConfig {
            client_cert: it.certificate.into(),
            client_key: it.key.into(),
        });
        let root_cert = Some(trusts.pem.clone().into());
        let certificates = TlsCertificates {
            client_tls,
            root_cert,
        };
        Redis::with_client(Client::build_with_tls(url, certificates).unwrap())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn over_tls_takes_those_with_a_certificate_of_its_authority() {
        log::listen();
        let authority = Authority::new("ours");
        let server = server(&authority, "127.0.0.1").await;
        let of_a_node = |_| {
            let shows = authority.certify("a node");
            Node::of(broker(&server, &authority, Some(shows)))
        };
        works(three(of_a_node).await).await;
        is_refused(Node::of(broker(&server, &authority, None))).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn with_the_certificate_of_another_is_refused() {
        log::listen();
        let authority = Authority::new("ours");
        let shows = || Some(authority.certify("a node"));
        let other = server(&authority, "other.example").await;
        is_refused(Node::of(broker(&other, &authority, shows()))).await;
        let right = server(&authority, "127.0.0.1").await;
        is_refused(Node::of(broker(
            &right,
            &Authority::new("another"),
            shows(),
        )))
        .await;
        // The roots of the system do not know it either.
        let url = right.url().replace("redis://", "rediss://");
        is_refused(Node::of(Redis::new(&url).unwrap())).await;
    }
}

mod nats {
    use async_nats::ConnectOptions;

    use super::*;
    use crate::server::write;

    async fn server(authority: &Authority, name: &str) -> Server {
        let own = authority.certify(name);
        Server::start_with(Kind::Nats, |directory, _| {
            let file = |name: &str, text: &str| write(directory, name, text);
            let certificate = file("own.pem", &own.certificate);
            let (key, ca) = (file("own.key", &own.key), file("ca.pem", &authority.pem));
            [
                &["--tlsverify"][..],
                &["--tlscert", &certificate, "--tlskey", &key],
                &["--tlscacert", &ca],
            ]
            .concat()
            .into_iter()
            .map(Into::into)
            .collect()
        })
        .await
    }

    fn broker(server: &Server, trusts: &Authority, shows: Option<Identity>) -> Nats {
        let url = server.url().replace("nats://", "tls://");
        let ca = server.write("trusted.pem", &trusts.pem);
        let shows = shows.map(|it| {
            let certificate = server.write("node.pem", &it.certificate);
            (certificate, server.write("node.key", &it.key))
        });
        Nats::with_options(&url, move || {
            let options = ConnectOptions::new().add_root_certificates(ca.clone().into());
            match shows.clone() {
                Some((certificate, key)) => {
                    options.add_client_certificate(certificate.into(), key.into())
                }
                None => options,
            }
        })
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn over_tls_takes_those_with_a_certificate_of_its_authority() {
        log::listen();
        let authority = Authority::new("ours");
        let server = server(&authority, "127.0.0.1").await;
        let shown = || Some(authority.certify("a node"));
        works(three(|_| Node::of(broker(&server, &authority, shown()))).await).await;
        is_refused(Node::of(broker(&server, &authority, None))).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn with_the_certificate_of_another_is_refused() {
        log::listen();
        let authority = Authority::new("ours");
        let shows = || Some(authority.certify("a node"));
        let other = server(&authority, "other.example").await;
        is_refused(Node::of(broker(&other, &authority, shows()))).await;
        let right = server(&authority, "127.0.0.1").await;
        is_refused(Node::of(broker(
            &right,
            &Authority::new("another"),
            shows(),
        )))
        .await;
    }
}
