//! A second reading of RFC 1951, for tests: slow, short, and it tells how far back a stream
//! refers, which zlib does not.

/// What came out, behind the history that was there before.
pub(super) struct Inflated {
    pub(super) output: Vec<u8>,
    /// The largest distance, in bytes.
    pub(super) reach: usize,
}

/// Inflates blocks up to the end of `input`, which must be the end of one. `None`: it is not
/// DEFLATE, or refers to what is not there.
pub(super) fn inflate(input: &[u8], history: &[u8]) -> Option<Inflated> {
    let mut bits = Bits { input, place: 0 };
    let mut inflated = Inflated {
        output: history.to_vec(),
        reach: 0,
    };
    while bits.place < 8 * input.len() {
        let is_final = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => stored(&mut bits, &mut inflated)?,
            1 => {
                let mut literals = [8; 288];
                literals[144..256].fill(9);
                literals[256..280].fill(7);
                codes(
                    &mut bits,
                    &Code::new(&literals),
                    &Code::new(&[5; 30]),
                    &mut inflated,
                )?;
            }
            2 => {
                let (literals, distances) = tables(&mut bits)?;
                codes(&mut bits, &literals, &distances, &mut inflated)?;
            }
            _ => return None,
        }
        if is_final {
            bits.place = bits.place.next_multiple_of(8);
        }
    }
    inflated.output.drain(..history.len());
    Some(inflated)
}

fn stored(bits: &mut Bits<'_>, inflated: &mut Inflated) -> Option<()> {
    bits.place = bits.place.next_multiple_of(8);
    let len = bits.take(16)?;
    if bits.take(16)? != len ^ 0xffff {
        return None;
    }
    for _ in 0..len {
        inflated.output.push(u8::try_from(bits.take(8)?).ok()?);
    }
    Some(())
}

fn tables(bits: &mut Bits<'_>) -> Option<(Code, Code)> {
    let literals = bits.take(5)? + 257;
    let distances = bits.take(5)? + 1;
    let mut order = [
        16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
    ]
    .into_iter();
    let mut lengths = [0; 19];
    for _ in 0..bits.take(4)? + 4 {
        lengths[order.next()?] = u8::try_from(bits.take(3)?).ok()?;
    }
    let code = Code::new(&lengths);
    let mut lengths = Vec::new();
    while lengths.len() < literals + distances {
        let (value, times) = match code.read(bits)? {
            16 => (*lengths.last()?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            length => (u8::try_from(length).ok()?, 1),
        };
        lengths.extend(std::iter::repeat_n(value, times));
    }
    let (first, second) = lengths.split_at_checked(literals)?;
    Some((Code::new(first), Code::new(second)))
}

fn codes(
    bits: &mut Bits<'_>,
    literals: &Code,
    distances: &Code,
    inflated: &mut Inflated,
) -> Option<()> {
    loop {
        let symbol = literals.read(bits)?;
        if let Ok(literal) = u8::try_from(symbol) {
            inflated.output.push(literal);
            continue;
        }
        if symbol == 256 {
            return Some(());
        }
        let length = match symbol - 257 {
            short @ 0..8 => 3 + short,
            28 => 258,
            long @ 8..28 => {
                let extra = long / 4 - 1;
                3 + ((4 + long % 4) << extra) + bits.take(extra)?
            }
            _ => return None,
        };
        let distance = match distances.read(bits)? {
            near @ 0..4 => 1 + near,
            far @ 4..30 => {
                let extra = far / 2 - 1;
                1 + ((2 + far % 2) << extra) + bits.take(extra)?
            }
            _ => return None,
        };
        inflated.reach = inflated.reach.max(distance);
        for _ in 0..length {
            let place = inflated.output.len().checked_sub(distance)?;
            inflated.output.push(inflated.output[place]);
        }
    }
}

/// Canonical codes: for each length, the symbols that have it (RFC 1951 §3.2.2).
struct Code([Vec<usize>; 16]);

impl Code {
    fn new(lengths: &[u8]) -> Self {
        let mut symbols = Self(Default::default());
        for (symbol, length) in lengths.iter().enumerate() {
            if *length > 0 {
                symbols.0[usize::from(*length)].push(symbol);
            }
        }
        symbols
    }

    fn read(&self, bits: &mut Bits<'_>) -> Option<usize> {
        let (mut code, mut first) = (0, 0);
        for symbols in &self.0[1..] {
            code = code << 1 | bits.take(1)?;
            first <<= 1;
            if let Some(symbol) = symbols.get(code.checked_sub(first)?) {
                return Some(*symbol);
            }
            first += symbols.len();
        }
        None
    }
}

struct Bits<'input> {
    input: &'input [u8],
    place: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<usize> {
        let mut value = 0;
        for bit in 0..count {
            let byte = *self.input.get(self.place / 8)?;
            value |= usize::from(byte >> (self.place % 8) & 1) << bit;
            self.place += 1;
        }
        Some(value)
    }
}
