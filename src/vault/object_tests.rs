//! Tests of sealed objects: what was sealed opens, what was changed does not.

use super::*;
use crate::ErrorKind;

fn keys() -> (SealKeys, OpenKeys, OpenKeys) {
    let identity = Identity::generate();
    let index = IndexKey::generate().expect("key");
    let seal = SealKeys { epoch: 1, recipient: identity.to_public(), index: index.clone() };
    let full = OpenKeys { index: index.clone(), epochs: vec![(1, identity)] };
    (seal, full, OpenKeys { index, epochs: Vec::new() })
}

fn sealed(class: Class, keys: &SealKeys) -> Sealed {
    let mut sealer = ObjectSealer::new(class, keys).expect("sealer");
    sealer.push(&Frame::compress(&b"page ".repeat(1000), 3));
    sealer.push(&Frame::compress(b"x", 3));
    sealer.finish(Some([7; 32]), Some(b"{\"commits\":3}"))
}

#[test]
fn what_was_sealed_opens_and_the_writer_alone_cannot_open_data() {
    let (seal, full, writer) = keys();
    let object = sealed(Class::Pack, &seal);
    let opened = ObjectOpener::new(Class::Pack, &object.bytes, &full).expect("header");
    let mut expected = b"page ".repeat(1000);
    expected.push(b'x');
    assert_eq!(opened.whole(&object.bytes).expect("whole"), expected);
    assert_eq!(opened.table(&object.bytes).expect("table"), object.frames);

    let blind = ObjectOpener::new(Class::Pack, &object.bytes, &writer).expect("header");
    assert_eq!(blind.whole(&object.bytes).expect_err("must not open").kind(), ErrorKind::Denied);
    let tail = Tail::parse(&object.bytes).expect("tail");
    let end = object.bytes.len() - TAIL_LENGTH;
    let summary = &object.bytes[end - tail.summary_len as usize..end];
    assert_eq!(blind.summary(summary).expect("summary"), b"{\"commits\":3}");
    assert_eq!(tail.mac, [7; 32]);

    let meta = sealed(Class::Meta, &seal);
    let manifest = ObjectOpener::new(Class::Meta, &meta.bytes, &writer).expect("header");
    assert_eq!(manifest.whole(&meta.bytes).expect("the index key opens metadata"), expected);
}

#[test]
fn any_changed_byte_is_found() {
    let (seal, full, _) = keys();
    let object = sealed(Class::Wal, &seal);
    for at in 0..object.bytes.len() {
        let mut bytes = object.bytes.to_vec();
        bytes[at] ^= 1;
        let tail_mac = object.bytes.len() - 40..object.bytes.len() - 8;
        if tail_mac.contains(&at) {
            continue; // the MAC is compared with the content by those who use it
        }
        let tail = Tail::parse(&object.bytes).expect("tail");
        let summary_end = object.bytes.len() - TAIL_LENGTH;
        let read = ObjectOpener::new(Class::Wal, &bytes, &full).and_then(|o| {
            o.whole(&bytes)?;
            o.summary(&bytes[summary_end - tail.summary_len as usize..summary_end])
        });
        assert!(read.is_err(), "byte {at} was changed unnoticed");
    }
}

#[test]
fn frames_cannot_be_swapped_and_one_class_does_not_pass_for_another() {
    let (seal, full, _) = keys();
    let mut sealer = ObjectSealer::new(Class::Pack, &seal).expect("sealer");
    sealer.push(&Frame { coding: Coding::Raw, plain_len: 1, body: b"a".to_vec() });
    sealer.push(&Frame { coding: Coding::Raw, plain_len: 1, body: b"b".to_vec() });
    let object = sealer.finish(None, None);
    let opener = ObjectOpener::new(Class::Pack, &object.bytes, &full).expect("header");
    let slice = |f: &FrameInfo| &object.bytes[f.offset as usize..][..f.stored_len as usize];
    let [first, second] = object.frames[..] else { panic!("two frames") };
    let mut memory = OpenMemory::default();
    assert!(opener.frame(0, &first, slice(&second), &mut memory).is_err());
    assert!(opener.frame(1, &second, slice(&second), &mut memory).is_ok());
    assert!(ObjectOpener::new(Class::Wal, &object.bytes, &full).is_err());
}
