//! Brokers over TLS: a private authority, a client's certificate, and servers that are not whom
//! they should be.

use ::redis::{Client, ClientTlsConfig, TlsCertificates};
use async_nats::ConnectOptions;
use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair};
use ws_tests::broker::{Broker, Kind, free_port, write};
use ws_tower::hub::backplane::{Nats, Redis, RedisCluster};

use super::{
    log,
    node::{Node, backplane, three, until},
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

/// A server with a certificate for this name. It asks clients for one.
async fn server(kind: Kind, authority: &Authority, name: &str) -> Broker {
    server_with(kind, authority, name, &[]).await
}

async fn server_with(kind: Kind, authority: &Authority, name: &str, more: &[&str]) -> Broker {
    let own = authority.certify(name);
    Broker::start_with(kind, |directory, port| {
        let file = |name: &str, text: &str| write(directory, name, text);
        let certificate = file("own.pem", &own.certificate);
        let (key, ca) = (file("own.key", &own.key), file("ca.pem", &authority.pem));
        let port = port.to_string();
        let own = match kind {
            Kind::Redis => [
                ["--port", "0", "--tls-port", &port],
                ["--tls-cert-file", &certificate, "--tls-key-file", &key],
            ]
            .concat(),
            Kind::Nats => vec!["--tlsverify", "--tlscert", &certificate, "--tlskey", &key],
        };
        let authority = match kind {
            Kind::Redis => ["--tls-ca-cert-file", &ca],
            Kind::Nats => ["--tlscacert", &ca],
        };
        let all = own.into_iter().chain(authority);
        all.chain(more.iter().copied()).map(Into::into).collect()
    })
    .await
}

/// Its URL for TLS.
fn url(server: &Broker) -> String {
    let url = server.url();
    match server.kind {
        Kind::Redis => url.replace("redis://", "rediss://"),
        Kind::Nats => url.replace("nats://", "tls://"),
    }
}

/// A node that trusts this authority, and shows a certificate if it has one.
fn node(server: &Broker, trusts: &Authority, shows: Option<Identity>) -> Node {
    match server.kind {
        Kind::Redis => Node::of(Redis::with_client(redis_client(server, trusts, shows))),
        Kind::Nats => Node::of(nats_broker(server, trusts, shows)),
    }
}

fn redis_client(server: &Broker, trusts: &Authority, shows: Option<Identity>) -> Client {
    let client_tls = shows.map(|it| ClientTlsConfig {
        client_cert: it.certificate.into(),
        client_key: it.key.into(),
    });
    let root_cert = Some(trusts.pem.clone().into());
    let certificates = TlsCertificates {
        client_tls,
        root_cert,
    };
    Client::build_with_tls(url(server), certificates).unwrap()
}

fn nats_broker(server: &Broker, trusts: &Authority, shows: Option<Identity>) -> Nats {
    let ca = server.write("trusted.pem", &trusts.pem);
    let shows = shows.map(|it| {
        let certificate = server.write("node.pem", &it.certificate);
        (certificate, server.write("node.key", &it.key))
    });
    Nats::with_options(&url(server), move || {
        let options = ConnectOptions::new().add_root_certificates(ca.clone().into());
        match shows.clone() {
            Some((certificate, key)) => {
                options.add_client_certificate(certificate.into(), key.into())
            }
            None => options,
        }
    })
}

async fn those_with_a_certificate_are_taken(kind: Kind) {
    log::listen();
    let authority = Authority::new("ours");
    let server = server(kind, &authority, "127.0.0.1").await;
    let shown = || Some(authority.certify("a node"));
    works(three(|_| node(&server, &authority, shown())).await).await;
    is_refused(node(&server, &authority, None)).await;
}

async fn another_is_refused(kind: Kind) {
    log::listen();
    let authority = Authority::new("ours");
    let shown = || Some(authority.certify("a node"));
    let other = server(kind, &authority, "other.example").await;
    is_refused(node(&other, &authority, shown())).await;
    let right = server(kind, &authority, "127.0.0.1").await;
    is_refused(node(&right, &Authority::new("another"), shown())).await;
    // The roots of the system do not know it either.
    is_refused(Node::of(backplane(kind, &url(&right)))).await;
}

mod redis {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn over_tls_takes_those_with_a_certificate_of_its_authority() {
        those_with_a_certificate_are_taken(Kind::Redis).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn with_the_certificate_of_another_is_refused() {
        another_is_refused(Kind::Redis).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn over_tls_is_a_cluster_too() {
        let authority = Authority::new("ours");
        let bus = free_port().to_string();
        let more = [
            ["--cluster-enabled", "yes"],
            ["--tls-cluster", "yes"],
            ["--cluster-port", &bus],
        ];
        // Alone it does not know its own address: that is the one under which it was asked.
        let server = server_with(Kind::Redis, &authority, "127.0.0.1", &more.concat()).await;
        let client = redis_client(&server, &authority, Some(authority.certify("a node")));
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut all = ::redis::cmd("CLUSTER");
        all.arg(&["ADDSLOTSRANGE", "0", "16383"]);
        let () = all.query_async(&mut connection).await.unwrap();
        let broker = RedisCluster::with_clients([client]).unwrap();
        works(three(|_| Node::of(broker.clone())).await).await;
    }
}

mod nats {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn over_tls_takes_those_with_a_certificate_of_its_authority() {
        those_with_a_certificate_are_taken(Kind::Nats).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a broker: tests/full.sh"]
    async fn with_the_certificate_of_another_is_refused() {
        another_is_refused(Kind::Nats).await;
    }
}
