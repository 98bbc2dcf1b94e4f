//! A reader of DER, for the few structures that no library of ours reads with bounds.

use pkcs8::der::asn1::{AnyRef, ObjectIdentifier};
use pkcs8::der::{Decode, Reader as _, SliceReader, Tag, Tagged};

use crate::error::Fault;

/// Reads elements one after another from a slice.
pub(crate) struct Reader<'a>(Option<SliceReader<'a>>);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(SliceReader::new(bytes).ok())
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(|reader| reader.is_finished())
    }

    pub(crate) fn decode<T: Decode<'a>>(&mut self) -> Result<T, Fault> {
        let reader = self.0.as_mut().ok_or(Fault::Unreadable)?;
        T::decode(reader).map_err(|_| Fault::Unreadable)
    }

    /// The content of the next element, which must have this tag.
    pub(crate) fn value(&mut self, tag: Tag) -> Result<&'a [u8], Fault> {
        let any: AnyRef<'a> = self.decode()?;
        if any.tag() == tag { Ok(any.value()) } else { Err(Fault::Unreadable) }
    }

    /// A reader of the content of the next element, which must have this tag.
    pub(crate) fn enter(&mut self, tag: Tag) -> Result<Reader<'a>, Fault> {
        self.value(tag).map(Reader::new)
    }

    pub(crate) fn oid(&mut self) -> Result<ObjectIdentifier, Fault> {
        self.decode()
    }

    pub(crate) fn integer(&mut self) -> Result<u32, Fault> {
        self.decode()
    }
}

/// The tag of a constructed, context-specific element.
pub(crate) fn context(number: u8) -> Tag {
    Tag::ContextSpecific { constructed: true, number: pkcs8::der::TagNumber(u32::from(number)) }
}
