//! Messages that compress as those of real-time applications do.

/// How many different messages there are: a compressor that keeps its window sees none of them
/// twice within it.
pub const MESSAGES: usize = 200;

/// About 1,024 bytes of JSON, different for each number: an update of fourteen items.
pub fn message(number: usize) -> Vec<u8> {
    let names = ["alice", "bob", "carol", "dave", "erin"];
    let item = |item: usize| {
        let mixed = (number * 14 + item).wrapping_mul(2_654_435_761) >> 7;
        format!(
            r#"{{"id":{},"user":"{}","price":{}.{:02},"online":{},"note":"n{}"}}"#,
            mixed % 100_000,
            names[mixed % 5],
            mixed % 997,
            mixed % 89,
            mixed.is_multiple_of(3),
            mixed % 1009,
        )
    };
    let items: Vec<_> = (0..14).map(item).collect();
    let items = items.join(",");
    format!(r#"{{"type":"update","seq":{number},"items":[{items}]}}"#).into_bytes()
}
