//! What stands in for permessage-deflate without the feature: a compression that no connection
//! has, so that nobody else has to ask for the feature.

use bytes::Bytes;

use crate::{
    Compress, ProtocolError,
    frame::OpCode,
    stream::{encoder::Encoder, outgoing::Outgoing},
};

#[derive(Debug)]
pub(crate) enum Compression {}

#[derive(Debug)]
pub(crate) enum Inflater {}

#[derive(Clone, Debug)]
pub(crate) enum Deflated {}

impl Compression {
    pub(crate) fn inflater(&mut self) -> &mut Inflater {
        match *self {}
    }

    pub(crate) fn message(
        &mut self,
        _: Encoder,
        _: &mut Outgoing,
        _: OpCode,
        _: &[u8],
        _: Compress,
    ) -> bool {
        match *self {}
    }

    pub(crate) fn fragment(&mut self, _: Encoder, _: &mut Outgoing, _: (OpCode, bool), _: &[u8]) {
        match *self {}
    }

    pub(crate) fn wants(&self, _: usize, _: Compress) -> bool {
        match *self {}
    }

    pub(crate) fn deflate(&self, _: &[u8], _: Compress) -> Option<Deflated> {
        match *self {}
    }

    pub(crate) fn deflate_narrow(&self, _: &[u8], _: Compress) -> Option<Deflated> {
        match *self {}
    }

    pub(crate) fn adopt(&mut self, _: &Deflated) -> bool {
        match *self {}
    }

    pub(crate) fn keeps_context(&self) -> bool {
        match *self {}
    }

    pub(crate) fn tick(&mut self) {
        match *self {}
    }

    pub(crate) fn stop_sending(&mut self) {
        match *self {}
    }

    pub(crate) fn stop_receiving(&mut self) {
        match *self {}
    }
}

impl Inflater {
    pub(crate) fn push(
        &mut self,
        _: &[u8],
        _: &mut Vec<u8>,
        _: usize,
    ) -> Result<(), ProtocolError> {
        match *self {}
    }

    pub(crate) fn finish(&mut self, _: &mut Vec<u8>, _: usize) -> Result<(), ProtocolError> {
        match *self {}
    }
}

impl Deflated {
    pub(crate) fn payload(&self) -> &Bytes {
        match *self {}
    }
}
