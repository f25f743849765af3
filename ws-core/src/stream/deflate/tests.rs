//! Tests of the codec in bytes, by RFC 7692's sections, and of what must hold for all of them.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    Context, Deflated, Deflater, Inflater, Outcome, Pool, Settings, TAIL,
    compressor::store,
    decompressor::too_big,
    pool::{PoolConfig, PoolStatistics, ShelfStatistics},
    reference,
};
use crate::{CloseCode, Compress, ProtocolError};

const LIMIT: usize = 1 << 20;

fn pool() -> Pool {
    Pool::default()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|place| u8::from_str_radix(&hex[place..place + 2], 16).unwrap())
        .collect()
}

/// A message in the given pieces.
fn inflate_pieces<'piece>(
    inflater: &mut Inflater,
    pieces: impl IntoIterator<Item = &'piece [u8]>,
    limit: usize,
) -> Result<Vec<u8>, ProtocolError> {
    let mut message = Vec::new();
    for piece in pieces {
        inflater.push(piece, &mut message, limit)?;
    }
    inflater.finish(&mut message, limit)?;
    Ok(message)
}

fn inflate(inflater: &mut Inflater, payload: &[u8]) -> Result<Vec<u8>, ProtocolError> {
    inflate_pieces(inflater, [payload], LIMIT)
}

fn inflate_alone(payload: &[u8]) -> Result<Vec<u8>, ProtocolError> {
    inflate(&mut Inflater::new(pool()), payload)
}

fn settings(window_bits: u8, level: u8, context: Context) -> Settings {
    Settings {
        window_bits,
        level,
        context,
        ..Settings::default()
    }
}

fn deflater(window_bits: u8, context: Context) -> Deflater {
    Deflater::new(pool(), settings(window_bits, 1, context))
}

fn deflate(deflater: &mut Deflater, message: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    let outcome = deflater.compress(message, Compress::Always, &mut payload);
    assert_eq!(outcome, Outcome::Compressed);
    payload
}

fn deflated(message: &[u8], window_bits: u8, level: u8, pool: &Pool) -> Option<Deflated> {
    let settings = settings(window_bits, level, Context::Fresh);
    Deflated::new(message, Compress::Auto, settings, pool)
}

/// About 1 KiB of JSON, different for each number.
fn json(number: usize) -> Vec<u8> {
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

/// Bytes that do not shrink.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| step()).collect()
}

// RFC 7692 §7.2.3: the examples

#[test]
fn one_compressed_block_is_read() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(inflate_alone(&hello).unwrap(), b"Hello");
    let mut inflater = Inflater::new(pool());
    let pieces = [&hello[..3], &hello[3..]];
    assert_eq!(
        inflate_pieces(&mut inflater, pieces, LIMIT).unwrap(),
        b"Hello"
    );
}

#[test]
fn a_message_refers_to_the_window_that_was_taken_over() {
    let mut inflater = Inflater::with_context(pool(), 15);
    let first = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(inflate(&mut inflater, &first).unwrap(), b"Hello");
    let second = [0xf2, 0x00, 0x11, 0x00, 0x00];
    assert_eq!(inflate(&mut inflater, &second).unwrap(), b"Hello");
    assert_eq!(inflate_alone(&second), Err(ProtocolError::InvalidDeflate));
}

#[test]
fn a_block_without_compression_is_read() {
    let stored = [
        0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
    ];
    assert_eq!(inflate_alone(&stored).unwrap(), b"Hello");
}

#[test]
fn a_final_block_is_read() {
    let hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    assert_eq!(inflate_alone(&hello).unwrap(), b"Hello");
}

#[test]
fn two_blocks_in_one_message_are_read() {
    let hello = [
        0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
    ];
    assert_eq!(inflate_alone(&hello).unwrap(), b"Hello");
}

#[test]
fn an_empty_message_is_one_octet() {
    for context in [Context::Elastic, Context::Fresh] {
        let mut deflater = deflater(15, context);
        assert_eq!(deflate(&mut deflater, b""), [0x00]);
        assert_eq!(deflate(&mut deflater, b""), [0x00]);
        deflate(&mut deflater, b"Hello");
        assert_eq!(deflate(&mut deflater, b""), [0x00]);
    }
    assert_eq!(inflate_alone(&[0x00]).unwrap(), b"");
    assert_eq!(
        inflate_alone(&[0x02, 0x00]).unwrap(),
        b"",
        "an empty block with fixed codes"
    );
}

#[test]
fn a_payload_of_no_octets_is_an_empty_message() {
    assert_eq!(inflate_alone(&[]).unwrap(), b"");
}

// §7.2.3.4: final blocks

#[test]
fn a_final_block_with_nothing_behind_it_ends_the_message() {
    let hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(inflate_alone(&hello).unwrap(), b"Hello");
    assert_eq!(
        inflate_alone(&[0x01]).unwrap(),
        b"",
        "its last octets are the tail"
    );
}

#[test]
fn final_blocks_amid_a_message_keep_the_window() {
    let hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    // "Hello" again, as a distance of five, behind each of two final blocks.
    let again = [0xf3, 0x00, 0x11, 0x00, 0x00];
    let payload = [&hello[..], &again[..4], &again].concat();
    assert_eq!(inflate_alone(&payload).unwrap(), b"HelloHelloHello");
    let single = payload.chunks(1);
    let message = inflate_pieces(&mut Inflater::new(pool()), single, LIMIT);
    assert_eq!(message.unwrap(), b"HelloHelloHello");
}

#[test]
fn a_final_block_keeps_the_window_for_the_next_message() {
    let mut inflater = Inflater::with_context(pool(), 15);
    let hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let again = [0xf3, 0x00, 0x11, 0x00];
    assert_eq!(inflate(&mut inflater, &hello).unwrap(), b"Hello");
    // Twice in one message: the second refers over the first's end to the same window.
    let twice = [again, again].concat();
    assert_eq!(inflate(&mut inflater, &twice).unwrap(), b"HelloHello");
    let with_octet = [&again[..], &[0x00]].concat();
    assert_eq!(inflate(&mut inflater, &with_octet).unwrap(), b"Hello");
    assert_eq!(
        inflate(&mut inflater, &[0xf2, 0x00, 0x11, 0x00, 0x00]).unwrap(),
        b"Hello"
    );
}

#[test]
fn a_window_reaches_over_a_final_block_into_earlier_messages() {
    let (mut sender, mut inflater) = (
        deflater(15, Context::Elastic),
        Inflater::with_context(pool(), 15),
    );
    let message = noise(20_000);
    let first = deflate(&mut sender, &message);
    assert_eq!(inflate(&mut inflater, &first).unwrap(), message);
    // An empty final block before what refers to the first message.
    let second = [&[0x03, 0x00][..], &deflate(&mut sender, &message)].concat();
    assert!(second.len() < 1000);
    assert_eq!(inflate(&mut inflater, &second).unwrap(), message);
    let third = deflate(&mut sender, &message);
    assert_eq!(inflate(&mut inflater, &third).unwrap(), message);
}

#[test]
fn a_flood_of_final_blocks_is_refused_unless_much_comes_out() {
    let flood = [0x03, 0x00].repeat(100_000);
    assert_eq!(
        inflate_alone(&flood),
        Err(ProtocolError::TooManyFinalBlocks)
    );
    // As a sender writes it that finishes a stream for each flush.
    let mut payload = Vec::new();
    for _ in 0..2000 {
        payload.extend([0x01, 0x00, 0x02, 0xff, 0xfd]);
        payload.extend([7; 512]);
        payload.extend([0x01, 0x00, 0x02, 0xff, 0xfd]);
        payload.extend([8; 512]);
    }
    let message = inflate_pieces(&mut Inflater::new(pool()), [&payload[..]], 4 * LIMIT);
    assert_eq!(message, Err(ProtocolError::TooManyFinalBlocks));
    let mut payload = Vec::new();
    for _ in 0..2000 {
        payload.extend([0x01, 0x00, 0x04, 0xff, 0xfb]);
        payload.extend([7; 1024]);
    }
    let message = inflate_pieces(&mut Inflater::new(pool()), [&payload[..]], 4 * LIMIT);
    assert_eq!(message.unwrap().len(), 2000 * 1024);
}

// §7.2.2: what is not the end of a block, or not DEFLATE

#[test]
fn a_message_that_ends_within_a_block_is_refused() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    for end in 1..hello.len() - 1 {
        let result = inflate_alone(&hello[..end]);
        assert_eq!(result, Err(ProtocolError::InvalidDeflate), "{end} octets");
    }
    let stored = [
        0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
    ];
    for end in 2..stored.len() - 1 {
        let result = inflate_alone(&stored[..end]);
        assert_eq!(result, Err(ProtocolError::InvalidDeflate), "{end} octets");
    }
}

#[test]
fn a_tail_that_should_have_been_removed_is_refused() {
    let hello = [
        0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00, 0x00, 0xff, 0xff,
    ];
    assert_eq!(inflate_alone(&hello), Err(ProtocolError::InvalidDeflate));
}

#[test]
fn what_is_not_deflate_is_refused_wherever_it_is_cut() {
    for payload in [
        &[0x06, 0x00][..],                                 // block type 3
        &[0x00, 0x05, 0x00, 0x00, 0x00],                   // lengths that do not match
        &[0x04, 0xff, 0xff, 0xff, 0xff],                   // impossible tables
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x06], // behind a final block
    ] {
        assert_eq!(inflate_alone(payload), Err(ProtocolError::InvalidDeflate));
        let pieces = payload.chunks(1);
        let result = inflate_pieces(&mut Inflater::new(pool()), pieces, LIMIT);
        assert_eq!(result, Err(ProtocolError::InvalidDeflate));
    }
}

#[test]
fn errors_know_their_close_code() {
    for (error, code) in [
        (ProtocolError::InvalidDeflate, CloseCode::INVALID_PAYLOAD),
        (too_big(1), CloseCode::MESSAGE_TOO_BIG),
        (ProtocolError::TooManyFinalBlocks, CloseCode::PROTOCOL_ERROR),
    ] {
        assert_eq!(error.close_code(), code);
    }
}

// Limits

#[test]
fn a_message_of_the_limit_passes_and_one_byte_more_does_not() {
    for len in [1, 5, 16_383, 16_384, 16_385, 100_000] {
        let payload = deflate(&mut deflater(15, Context::Fresh), &vec![b'a'; len]);
        for chunk in [1, 7, payload.len()] {
            let mut inflater = Inflater::new(pool());
            let message = inflate_pieces(&mut inflater, payload.chunks(chunk), len);
            assert_eq!(message.unwrap().len(), len);
            let message = inflate_pieces(&mut inflater, payload.chunks(chunk), len - 1);
            assert_eq!(message, Err(too_big(len - 1)));
        }
    }
    let payload = deflate(&mut deflater(15, Context::Fresh), b"");
    let message = inflate_pieces(&mut Inflater::new(pool()), [&payload[..]], 0);
    assert_eq!(message.unwrap(), b"");
}

#[test]
fn a_bomb_stops_at_the_limit_without_more_memory_than_that() {
    // 1 MiB that becomes 1 GiB: what one block makes of zeros, over and over.
    let mut sender = Deflater::new(pool(), settings(15, 9, Context::Elastic));
    let zeros = vec![0; 1 << 20];
    let mut bomb = deflate(&mut sender, &zeros);
    bomb.extend(TAIL);
    let bomb = bomb.repeat(1024);
    assert!(bomb.len() < 1_200_000);
    for limit in [1000, LIMIT, 5_000_000] {
        let mut inflater = Inflater::new(pool());
        let mut message = Vec::new();
        let result = inflater.push(&bomb, &mut message, limit);
        assert_eq!(result, Err(too_big(limit)));
        assert_eq!(message.len(), limit + 1);
        assert!(message.capacity() <= limit + 1, "{}", message.capacity());
        assert_eq!(inflater.pool().statistics().decompressors.spare, 1);
    }
}

#[test]
fn a_message_keeps_no_more_memory_than_it_needs() {
    for len in [1, 1000, 16 << 10, 20_000, 70_000, 300_000] {
        let payload = deflate(
            &mut deflater(15, Context::Fresh),
            &json(1).repeat(400)[..len],
        );
        let message = inflate_alone(&payload).unwrap();
        assert!(
            message.capacity() <= len + len / 4,
            "{}",
            message.capacity()
        );
    }
}

// §7.1.1: context takeover, and what a pooled state must not remember

#[test]
fn a_distance_before_the_message_is_refused_on_a_reused_state() {
    let pool = pool();
    let mut inflater = Inflater::new(pool.clone());
    let secret = deflate(&mut deflater(15, Context::Fresh), &b"secret ".repeat(6000));
    // "a", then three bytes from two, from 7, from 32,768 bytes back: static codes by hand.
    for distance in [2, 7, 32_768] {
        inflate(&mut inflater, &secret).unwrap();
        let payload = literal_then_match(distance);
        let with_tail = [&payload[..], &TAIL].concat();
        let second = reference::inflate(&with_tail, &vec![b'x'; 32_768]).unwrap();
        assert_eq!(
            (second.output.len(), second.reach),
            (4, usize::from(distance))
        );
        for chunk in [1, payload.len()] {
            let pieces = payload.chunks(chunk);
            let result = inflate_pieces(&mut inflater, pieces, LIMIT);
            assert_eq!(
                result,
                Err(ProtocolError::InvalidDeflate),
                "distance {distance}"
            );
        }
        let behind_final = [&[0x03, 0x00][..], &payload].concat();
        assert_eq!(
            inflate(&mut inflater, &behind_final),
            Err(ProtocolError::InvalidDeflate)
        );
    }
    assert_eq!(
        pool.statistics().decompressors.misses,
        1,
        "one state for all"
    );
    let fine = literal_then_match(1);
    assert_eq!(inflate(&mut inflater, &fine).unwrap(), b"aaaa");
}

/// The letter "a", three bytes from `distance` back, and the end of the message.
fn literal_then_match(distance: u16) -> Vec<u8> {
    let (code, extra_bits, extra) = match distance {
        1..=4 => (distance - 1, 0, 0),
        7 => (5, 1, 0),
        _ => (29, 13, distance - 24_577),
    };
    let extra: String = (0..extra_bits)
        .map(|bit| if extra >> bit & 1 == 1 { '1' } else { '0' })
        .collect();
    let bits = [
        "010",                           // not final, fixed codes: the least significant bit first
        &format!("{:08b}", 0x30 + b'a'), // a literal
        "0000001",                       // length 3
        &format!("{code:05b}"),          // the distance
        &extra,
        "0000000", // end of block
        "000",     // the empty block whose rest is the tail
    ]
    .concat();
    bits.as_bytes()
        .chunks(8)
        .map(|byte| {
            (0..)
                .zip(byte)
                .fold(0, |sum, (bit, digit)| sum | (digit - b'0') << bit)
        })
        .collect()
}

#[test]
fn a_pooled_compressor_refers_to_nothing_of_its_last_user() {
    let pool = pool();
    let first = deflate(
        &mut Deflater::new(pool.clone(), Settings::default()),
        &json(1),
    );
    let second = deflate(
        &mut Deflater::new(pool.clone(), Settings::default()),
        &json(1),
    );
    assert_eq!(first, second);
    assert_eq!(pool.statistics().compressors.misses, 1);
    assert_eq!(pool.statistics().compressors.hits, 1);
}

#[test]
fn the_retained_window_is_no_larger_than_negotiated() {
    for bits in 8..=15 {
        let mut inflater = Inflater::with_context(pool(), bits);
        let mut sender = deflater(bits, Context::Elastic);
        for number in 0..200 {
            let message = json(number);
            let payload = deflate(&mut sender, &message);
            assert_eq!(inflate(&mut inflater, &payload).unwrap(), message);
            assert!(inflater.window_capacity() <= 1 << bits);
        }
        assert_eq!(inflater.window_capacity(), 1 << bits);
    }
}

#[test]
fn kept_context_makes_later_messages_smaller() {
    let mut kept = deflater(15, Context::Elastic);
    let mut fresh = deflater(15, Context::Fresh);
    let sizes =
        |deflater: &mut Deflater| [1, 2, 3].map(|number| deflate(deflater, &json(number)).len());
    let (kept, fresh) = (sizes(&mut kept), sizes(&mut fresh));
    assert_eq!(kept[0], fresh[0]);
    assert!(kept[2] < fresh[2] * 3 / 4, "{kept:?} {fresh:?}");
}

// What is worth it

#[test]
fn short_messages_and_those_that_do_not_shrink_are_left_alone() {
    let mut deflater = deflater(15, Context::Elastic);
    let mut payload = b"before".to_vec();
    for message in [
        vec![],
        vec![b'a'; 255],
        noise(300),
        noise(70_000),
        noise(200_000),
    ] {
        let outcome = deflater.compress(&message, Compress::Auto, &mut payload);
        assert_eq!(outcome, Outcome::NotWorthIt);
        assert_eq!(payload, b"before");
    }
    let outcome = deflater.compress(&[b'a'; 256], Compress::Auto, &mut payload);
    assert_eq!(outcome, Outcome::Compressed);
    assert_eq!(inflate_alone(&payload[6..]).unwrap(), [b'a'; 256]);
}

#[test]
fn whatever_is_asked_for_is_compressed() {
    for message in [vec![], b"a".to_vec(), noise(100_000)] {
        for level in 1..=9 {
            let mut deflater = Deflater::new(pool(), settings(15, level, Context::Elastic));
            let payload = deflate(&mut deflater, &message);
            assert_eq!(inflate_alone(&payload).unwrap(), message);
        }
    }
}

#[test]
fn an_attempt_that_was_not_sent_is_not_referred_to() {
    let mut sender = deflater(15, Context::Elastic);
    let mut inflater = Inflater::with_context(pool(), 15);
    let payload = deflate(&mut sender, &json(0));
    assert_eq!(inflate(&mut inflater, &payload).unwrap(), json(0));
    let unsent = noise(5000);
    let outcome = sender.compress(&unsent, Compress::Auto, &mut Vec::new());
    assert_eq!(outcome, Outcome::NotWorthIt);
    assert!(!sender.keeps_context());
    // It would shrink to a few bytes if it referred to the attempt.
    let payload = deflate(&mut sender, &unsent);
    assert!(payload.len() > 4900);
    assert_eq!(inflate(&mut inflater, &payload).unwrap(), unsent);
    let payload = deflate(&mut sender, &unsent);
    assert!(payload.len() < 500);
    assert_eq!(inflate(&mut inflater, &payload).unwrap(), unsent);
}

#[test]
fn a_compressor_that_gave_up_amid_its_output_is_as_good_as_new() {
    // Too large to come out in one step, too small for a trial of its beginning. At some of these
    // sizes it becomes too much while more is waiting.
    let noise = noise(65_000);
    for (bits, level) in [(9, 1), (15, 1), (15, 6)] {
        let new = || Deflater::new(pool(), settings(bits, level, Context::Elastic));
        let mut sender = new();
        let message = &noise[..45_000];
        let expected = deflate(&mut new(), message);
        for len in (9_000..65_000).step_by(500) {
            let mut payload = Vec::new();
            let outcome = sender.compress(&noise[..len], Compress::Auto, &mut payload);
            assert_eq!(outcome, Outcome::NotWorthIt);
            let payload = deflate(&mut sender, message);
            assert!(
                payload == expected,
                "after {len} bytes: {bits} bits, level {level}"
            );
            sender.forget();
        }
        assert_eq!(sender.pool().statistics().compressors.misses, 1);
    }
}

#[test]
fn a_large_message_whose_beginning_shrinks_is_compressed_whole() {
    let message = [json(0).repeat(40), json(1).repeat(100)].concat();
    assert!(message.len() > 100_000);
    let mut payload = Vec::new();
    let outcome = deflater(12, Context::Elastic).compress(&message, Compress::Auto, &mut payload);
    assert_eq!(outcome, Outcome::Compressed);
    assert_eq!(inflate_alone(&payload).unwrap(), message);
}

// The elastic context and the pool

#[test]
fn busy_connections_keep_their_compressor_and_idle_ones_give_it_back() {
    let pool = pool();
    assert_eq!(pool.statistics(), PoolStatistics::default());
    assert_eq!(pool.statistics().compressors, ShelfStatistics::default());
    let mut sender = Deflater::new(pool.clone(), Settings::default());
    for _ in 0..20 {
        deflate(&mut sender, &json(0));
    }
    sender.tick();
    assert!(sender.keeps_context(), "busy since the last tick");
    assert_eq!(pool.statistics().kept_compressors, 1);
    assert_eq!(pool.statistics().compressors.misses, 1);
    deflate(&mut sender, &json(0));
    sender.tick();
    assert!(!sender.keeps_context(), "one message since the last tick");
    assert_eq!(pool.statistics().kept_compressors, 0);
    assert_eq!(pool.statistics().compressors.spare, 1);
    deflate(&mut sender, &json(0));
    assert_eq!(pool.statistics().kept_compressors, 1);
    drop(sender);
    assert_eq!(pool.statistics().kept_compressors, 0);
    assert_eq!(pool.statistics().compressors.spare, 1);
}

#[test]
#[cfg(target_pointer_width = "64")]
fn an_idle_connection_costs_a_few_words() {
    assert_eq!((size_of::<Deflater>(), size_of::<Inflater>()), (40, 48));
}

#[test]
fn the_pool_is_bounded_and_nobody_is_robbed() {
    let config = PoolConfig {
        kept_compressors: 2,
        spare_compressors: 1,
        spare_decompressors: 1,
    };
    let pool = Pool::new(config);
    let mut senders: Vec<_> = (0..5)
        .map(|_| Deflater::new(pool.clone(), Settings::default()))
        .collect();
    for _ in 0..3 {
        for sender in &mut senders {
            deflate(sender, &json(0));
        }
    }
    let keep = senders.iter().filter(|sender| sender.keeps_context());
    assert_eq!(keep.count(), 2);
    let statistics = pool.statistics();
    assert_eq!(statistics.kept_compressors, 2);
    assert_eq!(statistics.compressors.misses, 3);
    assert_eq!(statistics.compressors.hits, 8);
    assert_eq!(statistics.compressors.spare, 1);
    drop(senders);
    assert_eq!(pool.statistics().compressors.spare, 1);
    assert_eq!(pool.statistics().compressors.dropped, 2);
    let mut inflaters = [(); 3].map(|()| Inflater::new(pool.clone()));
    for inflater in &mut inflaters {
        inflater.push(&[0x00], &mut Vec::new(), 1).unwrap();
    }
    assert_eq!(pool.statistics().decompressors.misses, 3);
    drop(inflaters);
    assert_eq!(pool.statistics().decompressors.spare, 1);
    assert_eq!(pool.statistics().decompressors.dropped, 2);
}

#[test]
fn connections_that_become_idle_leave_one_spare_compressor_behind() {
    let pool = pool();
    let mut senders: Vec<_> = [15, 15, 15, 12, 12]
        .map(|bits| Deflater::new(pool.clone(), settings(bits, 1, Context::Elastic)))
        .into();
    for sender in &mut senders {
        deflate(sender, &json(0));
    }
    assert_eq!(pool.statistics().kept_compressors, 5);
    for sender in &mut senders {
        sender.tick();
    }
    let statistics = pool.statistics();
    assert_eq!(statistics.kept_compressors, 0);
    let shelf = statistics.compressors;
    assert_eq!((shelf.spare, shelf.dropped), (2, 3), "one of each window");
}

#[test]
fn a_compressor_is_only_reused_with_the_same_window_and_level() {
    let pool = pool();
    for (bits, level) in [(15, 1), (12, 1), (15, 6), (15, 1), (9, 1), (8, 1)] {
        let settings = settings(bits, level, Context::Fresh);
        deflate(&mut Deflater::new(pool.clone(), settings), &json(0));
    }
    let statistics = pool.statistics().compressors;
    assert_eq!((statistics.misses, statistics.hits), (4, 2));
}

#[test]
fn spare_states_that_are_no_longer_asked_for_make_way() {
    let pool = pool();
    for bits in (9..=15).chain([15]) {
        let settings = settings(bits, 1, Context::Fresh);
        deflate(&mut Deflater::new(pool.clone(), settings), &json(0));
    }
    let statistics = pool.statistics().compressors;
    assert_eq!((statistics.spare, statistics.dropped), (4, 3));
    assert_eq!((statistics.misses, statistics.hits), (7, 1));
}

#[test]
fn the_pool_is_shared_by_threads() {
    let pool = pool();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..50 {
                    let mut sender = Deflater::new(pool.clone(), Settings::default());
                    let payload = deflate(&mut sender, &json(number));
                    let mut inflater = Inflater::new(pool.clone());
                    assert_eq!(inflate(&mut inflater, &payload).unwrap(), json(number));
                }
            });
        }
    });
    let statistics = pool.statistics();
    assert_eq!(statistics.kept_compressors, 0);
    assert!(statistics.compressors.misses <= 4);
}

// Prepared messages

#[test]
fn a_prepared_message_fits_every_window_that_covers_it() {
    let pool = pool();
    let short = deflated(&json(0)[..700], 15, 1, &pool).unwrap();
    assert!(!short.fits(8) && !short.fits(9) && short.fits(10) && short.fits(15));
    let long = deflated(&json(0).repeat(50), 12, 1, &pool).unwrap();
    assert!(!long.fits(11) && long.fits(12));
    let tiny = deflated(&json(0).repeat(50), 8, 1, &pool).unwrap();
    assert!(tiny.fits(8));
    assert!(deflated(&noise(1000), 15, 1, &pool).is_none());
    assert!(deflated(b"", 15, 1, &pool).is_none());
    assert_eq!(inflate_alone(short.payload()).unwrap(), json(0)[..700]);
}

// §7.2.1: a message that is sent in fragments

#[test]
fn fragments_of_a_message_come_back() {
    for context in [Context::Elastic, Context::Fresh] {
        let mut sender = deflater(12, context);
        let mut receiver = Inflater::with_context(pool(), 12);
        for pieces in [
            &[&json(0)[..], b"", &json(1), b""][..],
            &[b"", b""],
            &[b"Hel", b"lo"],
            &[&json(2).repeat(20)],
        ] {
            let mut frames = Vec::new();
            for (place, piece) in pieces.iter().enumerate() {
                let mut frame = Vec::new();
                sender.compress_fragment(piece, place + 1 == pieces.len(), &mut frame);
                frames.push(frame);
                if place == 1 {
                    sender.forget(); // legal even here
                }
            }
            let frames = frames.iter().map(Vec::as_slice);
            let message = inflate_pieces(&mut receiver, frames, LIMIT);
            assert_eq!(message.unwrap(), pieces.concat());
        }
    }
}

#[test]
fn stored_blocks_come_back() {
    for len in [0, 1, 65_535, 65_536, 200_000] {
        let mut payload = Vec::new();
        store(&noise(len), &mut payload);
        assert_eq!(inflate_alone(&payload).unwrap(), noise(len));
    }
}

// Streams that another zlib made: Python's `zlib.compressobj(level, DEFLATED, -bits)`

#[test]
fn streams_of_another_zlib_are_read() {
    let alice = br#"{"user":"alice","room":"lobby","text":"hello, hello, hello"}"#;
    let bob = br#"{"user":"bob","room":"lobby","text":"hello, hello, hello"}"#;
    // Level 9, the context kept.
    let kept = [
        "aa562a2d4e2d52b2524accc94c4e55d2512acacfcf057273f293922a81dc92d48a122037233527275f47019952aa\
         0500",
        "aa86e94dca4f224d2700",
        "aaa6c0560000",
    ];
    for bits in [9, 15] {
        let mut inflater = Inflater::with_context(pool(), bits);
        for (payload, message) in kept.iter().zip([&alice[..], bob, alice]) {
            assert_eq!(inflate(&mut inflater, &bytes(payload)).unwrap(), message);
        }
    }
    // Level 6, a fresh context.
    let fresh = "aa562a2d4e2d52b2524aca4f52d2512acacfcf057272f293922a81dc92d48a122037233527275f4701\
                 9952aa0500";
    assert_eq!(inflate_alone(&bytes(fresh)).unwrap(), bob);
    // Level 0.
    let stored = "003c00c3ff7b2275736572223a22616c696365222c22726f6f6d223a226c6f626279222c22746578\
                  74223a2268656c6c6f2c2068656c6c6f2c2068656c6c6f227d00";
    assert_eq!(inflate_alone(&bytes(stored)).unwrap(), alice);
    // Ended by `Z_FINISH`.
    let finished = "ab562a2d4e2d52b2524accc94c4e55d2512acacfcf057273f293922a81dc92d48a122037233527\
                    275f47019952aa0500";
    assert_eq!(inflate_alone(&bytes(finished)).unwrap(), alice);
}

#[test]
fn streams_with_another_window_are_read() {
    let message: Vec<_> = (0..40)
        .map(|id| format!(r#"{{"id":{id},"v":{}}}"#, id * 7919 % 1000))
        .collect();
    let message = message.concat();
    assert_eq!(
        inflate_alone(&bytes(NINE_BITS)).unwrap(),
        message.as_bytes()
    );
    assert_eq!(
        inflate_alone(&bytes(FIFTEEN_BITS)).unwrap(),
        message.as_bytes()
    );
}

// Properties

/// Messages as they are: text that repeats, short ones, bytes that do not shrink.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0..50_usize, 0..1200_usize).prop_map(|(number, len)| {
            let mut message = json(number);
            message.truncate(len);
            message
        }),
        2 => vec(any::<u8>(), 0..300),
        1 => (0..50_usize, 1..90_usize).prop_map(|(number, times)| json(number).repeat(times)),
        1 => (1..70_000_usize).prop_map(noise),
        1 => (any::<u8>(), 1..100_000_usize).prop_map(|(byte, len)| vec![byte; len]),
        1 => vec(prop_oneof![Just(b'a'), Just(b'b')], 0..3000),
    ]
}

/// What may happen on a connection that sends.
#[derive(Clone, Debug)]
enum Step {
    Message(Vec<u8>, Compress),
    Fragments(Vec<Vec<u8>>),
    Prepared(Vec<u8>),
    Tick,
    Forget,
}

fn any_step() -> impl Strategy<Value = Step> {
    let wish = prop_oneof![Just(Compress::Auto), Just(Compress::Always)];
    prop_oneof![
        8 => (any_message(), wish).prop_map(|(message, wish)| Step::Message(message, wish)),
        3 => any_message().prop_map(Step::Prepared),
        2 => vec(any_message(), 1..4).prop_map(Step::Fragments),
        1 => Just(Step::Tick),
        1 => Just(Step::Forget),
    ]
}

/// Cuts `payload` at these places.
fn cut<'payload>(payload: &'payload [u8], cuts: &[Index]) -> Vec<&'payload [u8]> {
    let mut places: Vec<_> = cuts
        .iter()
        .map(|cut| cut.index(payload.len() + 1))
        .collect();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut start = 0;
    for place in places {
        pieces.push(&payload[start..place]);
        start = place;
    }
    pieces.push(&payload[start..]);
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Any messages, prepared ones among them, with any parameters and any cutting come back, by
    /// our reading and by a second one, and never reach back further than was negotiated.
    #[test]
    fn any_messages_come_back(
        bits in 8..=15_u8,
        level in 1..=9_u8,
        sender_context in prop_oneof![Just(Context::Elastic), Just(Context::Fresh)],
        receiver_takes_over: bool,
        kept_compressors in 0..2_usize,
        steps in vec(any_step(), 1..8),
        cuts in vec(any::<Index>(), 0..6),
    ) {
        let pool = Pool::new(PoolConfig {
            kept_compressors,
            ..PoolConfig::default()
        });
        // Whoever takes nothing over has told the other end so.
        let context = if receiver_takes_over { sender_context } else { Context::Fresh };
        let mut sender = Deflater::new(pool.clone(), settings(bits, level, context));
        let mut receiver = if receiver_takes_over {
            Inflater::with_context(pool.clone(), bits)
        } else {
            Inflater::new(pool.clone())
        };
        let mut history = Vec::new();
        for step in steps {
            let mut payload = Vec::new();
            let message = match step {
                Step::Tick => {
                    sender.tick();
                    continue;
                }
                Step::Forget => {
                    sender.forget();
                    continue;
                }
                Step::Message(message, wish) => {
                    let outcome = sender.compress(&message, wish, &mut payload);
                    if outcome == Outcome::NotWorthIt {
                        prop_assert!(payload.is_empty() && wish == Compress::Auto);
                        continue;
                    }
                    prop_assert!(wish == Compress::Always || payload.len() < message.len());
                    message
                }
                Step::Fragments(pieces) => {
                    for (place, piece) in pieces.iter().enumerate() {
                        let fin = place + 1 == pieces.len();
                        sender.compress_fragment(piece, fin, &mut payload);
                    }
                    pieces.concat()
                }
                Step::Prepared(message) => {
                    let made = deflated(&message, 15, level, &pool);
                    let Some(deflated) = made.filter(|deflated| deflated.fits(bits)) else {
                        continue;
                    };
                    payload.extend_from_slice(deflated.payload());
                    sender.forget();
                    message
                }
            };
            let inflated = inflate_pieces(&mut receiver, cut(&payload, &cuts), message.len());
            prop_assert_eq!(inflated.as_ref(), Ok(&message));
            payload.extend(TAIL);
            let window = if receiver_takes_over { &history[..] } else { &[] };
            let second = reference::inflate(&payload, window);
            let second = second.expect("the second reading fails");
            prop_assert!(second.output == message);
            prop_assert!(second.reach <= 1 << bits, "{} with {bits} bits", second.reach);
            history.extend(message);
        }
    }

    /// Otherwise it would depend on the pool what the peer receives.
    #[test]
    fn a_reused_compressor_writes_what_a_new_one_writes(
        bits in 9..=15_u8,
        level in 1..=9_u8,
        before in vec(any_message(), 1..4),
        message in any_message(),
    ) {
        let pool = pool();
        let settings = settings(bits, level, Context::Fresh);
        let mut reused = Deflater::new(pool.clone(), settings);
        for before in before {
            let _ = reused.compress(&before, Compress::Auto, &mut Vec::new());
        }
        let payload = deflate(&mut reused, &message);
        prop_assert!(payload == deflate(&mut Deflater::new(self::pool(), settings), &message));
        prop_assert!(pool.statistics().compressors.misses <= 1);
    }

    #[test]
    fn any_bytes_are_taken_or_refused(
        prefix in any_message(),
        data in vec(any::<u8>(), 0..400),
        changes in vec((any::<Index>(), any::<u8>()), 0..4),
    ) {
        take_any_bytes(&data);
        let mut payload = deflate(&mut deflater(15, Context::Fresh), &prefix);
        for (place, byte) in changes {
            let place = place.index(payload.len());
            payload[place] = byte;
        }
        payload.extend(data);
        take_any_bytes(&payload);
    }
}

/// Any bytes of a peer: no panic, no more memory than the limit allows, the same however they are
/// cut, and what is taken is what a second reading takes them for.
fn take_any_bytes(data: &[u8]) {
    const SMALL: usize = 40_000;
    let pool = pool();
    for bits in [None, Some(9), Some(15)] {
        let new = || match bits {
            None => Inflater::new(pool.clone()),
            Some(bits) => Inflater::with_context(pool.clone(), bits),
        };
        let (mut whole, mut pieces) = (new(), new());
        for _ in 0..2 {
            // Whatever came before, a reused state reads what is right and refuses what is not.
            let mut next = Inflater::new(pool.clone());
            assert_eq!(inflate(&mut next, &literal_then_match(1)).unwrap(), b"aaaa");
            let before = inflate(&mut next, &literal_then_match(2));
            assert_eq!(before, Err(ProtocolError::InvalidDeflate));
            let expected = inflate_pieces(&mut whole, [data], SMALL);
            let result = inflate_pieces(&mut pieces, data.chunks(1), SMALL);
            assert_eq!(expected, result);
            let Ok(message) = expected else { break };
            assert!(message.len() <= SMALL && message.capacity() <= SMALL + 1);
            if bits.is_none() && !data.is_empty() {
                let with_tail = [data, &TAIL].concat();
                let second =
                    reference::inflate(&with_tail, &[]).or_else(|| reference::inflate(data, &[]));
                assert!(second.is_some_and(|second| second.output == message));
            }
        }
    }
    assert!(pool.statistics().decompressors.misses <= 2);
}

const NINE_BITS: &str = "\
    3cce316e03311043d1bb6c9d628794341a9fc78d2f90c6f0dd13884337043ec0e2bdafd7f37adc3fd7efff7edea7\
    e2544575e3f4e6eee6e99cd93d4eaf5cddf3f4acd9bdd431baf3f420bbf7694e74d76964d8235ed4172861dc1686\
    88b03044ac6162c8b8978d21646e2343cabcad0c3117cc0c39e7b033041dcb5008ca6d280445198a8686a5903468\
    29249d8642d04a4321e82e4321e80e432168d25008baa6a11474a6a114746c4329e8b80da5a084a11414c3524a1a\
    cb52b6d4500a6a26c52c98c9ea7f7cfe00";

const FIFTEEN_BITS: &str = "\
    3cd1316e04410844d1bb4cec600ae8067c1e27bec026abbdbbad2e6a12a42f113cc1fbfafdb9beefafebf53f3fef\
    5338d5e8693b5d5ed37e3a574ec7e99d7b7a9d5ebda6371b319da7c37dba4efbb2e93e6d0979c8433f400a714b08\
    124d4290d8212268ac2d2388cc121254e62d25c8dc2626e85c2127088d2da811ea25a8116afd9c72a090d428854b\
    6a942e418dd04e418dd06a418dd082a04668baa046e85e823aa12b057542a3047542e37e9e4ea89ba04ea885a44e\
    29b6a43e52419d50319dcc3631bd671f9f3f00";
