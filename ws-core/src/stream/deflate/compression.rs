//! Both directions of one connection.

use super::{Deflated, Deflater, Inflater, Outcome, Pool, Settings};
use crate::{
    Compress,
    frame::OpCode,
    stream::{
        encoder::{Encoder, Head},
        outgoing::Outgoing,
    },
};

/// What a connection has that has agreed on compression.
#[derive(Debug)]
pub(crate) struct Compression {
    inflater: Inflater,
    /// `None`: the peer demands a window that no compressor can keep, and gets messages as they
    /// are.
    deflater: Option<Deflater>,
}

impl Compression {
    /// `own` is how this end compresses, `peer_window_bits` the window of the peer if it takes
    /// its context over.
    pub(crate) fn new(pool: &Pool, own: Option<Settings>, peer_window_bits: Option<u8>) -> Self {
        Self {
            inflater: match peer_window_bits {
                Some(bits) => Inflater::with_context(pool.clone(), bits),
                None => Inflater::new(pool.clone()),
            },
            deflater: own.map(|settings| Deflater::new(pool.clone(), settings)),
        }
    }

    pub(crate) fn inflater(&mut self) -> &mut Inflater {
        &mut self.inflater
    }

    /// How this end compresses, if it does.
    pub(crate) fn settings(&self) -> Option<Settings> {
        self.deflater.as_ref().map(Deflater::settings)
    }

    /// Queues a message compressed. `false`: it is not worth it, and nothing was queued.
    pub(crate) fn message(
        &mut self,
        encoder: Encoder,
        out: &mut Outgoing,
        opcode: OpCode,
        message: &[u8],
        compress: Compress,
    ) -> bool {
        let Some(deflater) = &mut self.deflater else {
            return false;
        };
        encoder.made(out, Head::whole(opcode).compressed(), |payload| {
            deflater.compress(message, compress, payload) == Outcome::Compressed
        })
    }

    /// Whether a message of this size, or whose first fragment has it, is to be compressed.
    pub(crate) fn wants(&self, len: usize, compress: Compress) -> bool {
        let Some(deflater) = &self.deflater else {
            return false;
        };
        match compress {
            Compress::Auto => len >= deflater.settings().min_size,
            Compress::Always => true,
            Compress::Never => false,
        }
    }

    /// Queues a fragment of a compressed message: its opcode, and whether it is the last.
    pub(crate) fn fragment(
        &mut self,
        encoder: Encoder,
        out: &mut Outgoing,
        (opcode, fin): (OpCode, bool),
        piece: &[u8],
    ) {
        let Some(deflater) = &mut self.deflater else {
            return;
        };
        let head = Head {
            opcode,
            fin,
            // RFC 7692 §6.1: on the first frame only.
            rsv1: opcode != OpCode::Continuation,
        };
        encoder.made(out, head, |payload| {
            deflater.compress_fragment(piece, fin, payload);
            true
        });
    }

    /// Compresses a message for many connections, as this one would.
    pub(crate) fn deflate(&self, message: &[u8], compress: Compress) -> Option<Deflated> {
        let deflater = self.deflater.as_ref()?;
        Deflated::new(message, compress, deflater.settings(), deflater.pool())
    }

    /// The same, for whatever window a connection has.
    pub(crate) fn deflate_narrow(&self, message: &[u8], compress: Compress) -> Option<Deflated> {
        let deflater = self.deflater.as_ref()?;
        let settings = Settings {
            window_bits: 8,
            ..deflater.settings()
        };
        Deflated::new(message, compress, settings, deflater.pool())
    }

    /// Makes way for a message that was compressed for many connections, if the peer's window
    /// covers it: that will hold what our compressor never saw.
    pub(crate) fn adopt(&mut self, message: &Deflated) -> bool {
        let Some(deflater) = &mut self.deflater else {
            return false;
        };
        let fits = message.fits(deflater.settings().window_bits);
        if fits {
            deflater.forget();
        }
        fits
    }

    /// Whether a compressor of the pool is kept for the next message.
    pub(crate) fn keeps_context(&self) -> bool {
        let deflater = self.deflater.as_ref();
        deflater.is_some_and(Deflater::keeps_context)
    }

    /// Gives the compressor back if the connection was not busy since the last tick.
    pub(crate) fn tick(&mut self) {
        if let Some(deflater) = &mut self.deflater {
            deflater.tick();
        }
    }

    /// Nothing more is sent.
    pub(crate) fn stop_sending(&mut self) {
        self.deflater = None;
    }

    /// Nothing more is received.
    pub(crate) fn stop_receiving(&mut self) {
        self.inflater.stop();
    }
}
