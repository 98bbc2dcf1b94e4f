//! A reader of DER, for the few structures that no library of ours reads with bounds.

use pkcs8::der::asn1::{AnyRef, ObjectIdentifier};
use pkcs8::der::{Decode, Reader as _, SliceReader, Tag, Tagged};

use crate::error::FileFault;

/// Reads elements one after another from a slice.
pub(crate) struct DerReader<'a>(Option<SliceReader<'a>>);

impl<'a> DerReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(SliceReader::new(bytes).ok())
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(|reader| reader.is_finished())
    }

    pub(crate) fn decode<T: Decode<'a>>(&mut self) -> Result<T, FileFault> {
        let reader = self.0.as_mut().ok_or(FileFault::Unreadable)?;
        T::decode(reader).map_err(|_| FileFault::Unreadable)
    }

    /// The content of the next element, which must have this tag.
    pub(crate) fn value(&mut self, tag: Tag) -> Result<&'a [u8], FileFault> {
        let any: AnyRef<'a> = self.decode()?;
        if any.tag() == tag { Ok(any.value()) } else { Err(FileFault::Unreadable) }
    }

    /// A reader of the content of the next element, which must have this tag.
    pub(crate) fn enter(&mut self, tag: Tag) -> Result<DerReader<'a>, FileFault> {
        self.value(tag).map(DerReader::new)
    }

    pub(crate) fn oid(&mut self) -> Result<ObjectIdentifier, FileFault> {
        self.decode()
    }

    pub(crate) fn integer(&mut self) -> Result<u32, FileFault> {
        self.decode()
    }
}

/// The tag of a constructed, context-specific element.
pub(crate) fn context(number: u8) -> Tag {
    Tag::ContextSpecific { constructed: true, number: pkcs8::der::TagNumber(u32::from(number)) }
}
