//! Which server of a cluster has which channel: hash slots, and the answer to `CLUSTER SLOTS`.

use redis::{ConnectionAddr, Value};

/// The slots of a cluster.
const SLOTS: u16 = 16_384;

/// The masters, and who has which slots.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) masters: Vec<ConnectionAddr>,
    /// The last slot of each range and the place of its master, in order and without a gap.
    ranges: Vec<(u16, usize)>,
}

impl Topology {
    /// Reads the answer of the server at this address. `None`: it is no such answer, or there are
    /// slots that nobody has.
    pub(super) fn read(answer: &Value, asked: &ConnectionAddr) -> Option<Self> {
        let Value::Array(entries) = answer else {
            return None;
        };
        let mut ranges = Vec::new();
        let mut masters = Vec::new();
        for entry in entries {
            let Value::Array(entry) = entry else {
                return None;
            };
            let [
                Value::Int(first),
                Value::Int(last),
                Value::Array(master),
                ..,
            ] = &**entry
            else {
                return None;
            };
            let address = address(master, asked)?;
            let known = masters.iter().position(|it| *it == address);
            let place = known.unwrap_or_else(|| {
                masters.push(address);
                masters.len() - 1
            });
            ranges.push((
                u16::try_from(*first).ok()?,
                u16::try_from(*last).ok()?,
                place,
            ));
        }
        ranges.sort_unstable();
        let mut next = 0;
        for (first, last, _) in &ranges {
            if *first != next || last < first {
                return None;
            }
            next = last.checked_add(1)?;
        }
        let ranges = ranges.into_iter().map(|(_, last, place)| (last, place));
        (next == SLOTS).then(|| Self {
            masters,
            ranges: ranges.collect(),
        })
    }

    /// The place of the master that has a channel.
    pub(super) fn master_of(&self, channel: &str) -> usize {
        let slot = slot(channel.as_bytes());
        let range = self.ranges.partition_point(|(last, _)| *last < slot);
        self.ranges.get(range).map_or(0, |(_, place)| *place)
    }
}

/// The address of a server, reached as the one was that told of it.
fn address(server: &[Value], asked: &ConnectionAddr) -> Option<ConnectionAddr> {
    let [name, Value::Int(port), ..] = server else {
        return None;
    };
    let name = match name {
        Value::BulkString(name) => std::str::from_utf8(name).ok()?,
        Value::SimpleString(name) => name,
        Value::Nil => "",
        _ => return None,
    };
    let port = u16::try_from(*port).ok()?;
    // A server that does not know its own name has the one under which it was asked.
    let or = |own: &str| {
        let is_unknown = matches!(name, "" | "?");
        if is_unknown { own } else { name }.to_owned()
    };
    match asked {
        ConnectionAddr::Tcp(own, _) => Some(ConnectionAddr::Tcp(or(own), port)),
        ConnectionAddr::TcpTls {
            host: own,
            insecure,
            tls_params,
            ..
        } => Some(ConnectionAddr::TcpTls {
            host: or(own),
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        }),
        _ => None,
    }
}

/// The slot of a channel: what stands between the first `{` and the next `}` decides, if there is
/// anything, else the whole name.
fn slot(channel: &[u8]) -> u16 {
    let tag = channel.iter().position(|it| *it == b'{').and_then(|open| {
        let behind = channel.get(open + 1..)?;
        let close = behind.iter().position(|it| *it == b'}')?;
        behind.get(..close).filter(|it| !it.is_empty())
    });
    crc16(tag.unwrap_or(channel)) % SLOTS
}

/// CRC-16/XMODEM, as the cluster specification has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        let [high, low] = crc.to_be_bytes();
        let changed = CRC.get(usize::from(high ^ byte));
        u16::from_be_bytes([low, 0]) ^ changed.copied().unwrap_or_default()
    })
}

/// What each byte does to the checksum.
static CRC: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte: u16 = 0;
    while byte < 256 {
        let mut crc = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            let overflows = crc & 0x8000 != 0;
            crc = (crc << 1) ^ if overflows { 0x1021 } else { 0 };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_what_the_cluster_says() {
        // The check value of the specification, and `CLUSTER KEYSLOT` of a server.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"ws:nodes"), slot(b"{ws:nodes}.more"));
        assert_eq!(slot(b"{foo}.1"), slot(b"foo"));
        assert_eq!(slot(b"a{foo}{bar}"), slot(b"foo"));
        assert_ne!(slot(b"{}foo"), slot(b"foo"));
        assert_ne!(slot(b"{foo"), slot(b"foo"));
    }

    fn range(first: i64, last: i64, host: &str, port: i64) -> Value {
        let master = vec![Value::BulkString(host.into()), Value::Int(port)];
        let replica = vec![Value::BulkString("replica".into()), Value::Int(1)];
        Value::Array(vec![
            Value::Int(first),
            Value::Int(last),
            Value::Array(master),
            Value::Array(replica),
        ])
    }

    fn read(ranges: Vec<Value>) -> Option<Topology> {
        let asked = ConnectionAddr::Tcp("asked".into(), 7000);
        Topology::read(&Value::Array(ranges), &asked)
    }

    #[test]
    fn each_slot_has_its_master() {
        let topology = read(vec![
            range(8192, 16_383, "", 7001),
            range(0, 100, "a", 7000),
            range(101, 101, "", 7001),
            range(102, 8191, "a", 7000),
        ])
        .unwrap();
        let masters: Vec<_> = topology.masters.iter().map(ToString::to_string).collect();
        assert_eq!(masters, ["asked:7001", "a:7000"]);
        // 12182 and 866 by `CLUSTER KEYSLOT`.
        assert_eq!(topology.master_of("foo"), 0);
        assert_eq!(topology.master_of("hello"), 1);
    }

    #[test]
    fn slots_that_nobody_or_two_have_are_no_cluster() {
        assert!(read(vec![]).is_none());
        assert!(read(vec![range(0, 16_382, "a", 1)]).is_none());
        assert!(read(vec![range(0, 9, "a", 1), range(11, 16_383, "a", 1)]).is_none());
        assert!(read(vec![range(0, 9, "a", 1), range(9, 16_383, "b", 1)]).is_none());
        assert!(read(vec![range(0, 65_536, "a", 1)]).is_none());
        assert!(read(vec![range(5, 4, "a", 1), range(0, 16_383, "a", 1)]).is_none());
    }
}
