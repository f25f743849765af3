use std::net::{IpAddr, SocketAddr};

use http::Request;
use ws_tower::PeerAddr;

/// Makes the client's address the request's peer, where the peer is the proxy.
fn forwarded<B>(mut request: Request<B>) -> Request<B> {
    // Anyone can write the header, so it counts only from the proxy. This one is on the same host.
    let peer = request.extensions().get::<PeerAddr>();
    let from_proxy = peer.is_some_and(|peer| peer.0.ip().is_loopback());
    // Proxies append: the last address is the one that ours wrote.
    let lines = request.headers().get_all("x-forwarded-for");
    let client = lines.iter().next_back().and_then(|line| {
        let address = line.to_str().ok()?.rsplit(',').next()?;
        address.trim().parse::<IpAddr>().ok()
    });
    if let (true, Some(client)) = (from_proxy, client) {
        // The port is not told.
        let peer = PeerAddr(SocketAddr::new(client, 0));
        request.extensions_mut().insert(peer);
    }
    request
}
