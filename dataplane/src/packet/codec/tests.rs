use super::*;
use crate::packet::hammer::{XorShift, hammer};

const VP8_KEYFRAME: &[u8] = &[0x90, 0xe0, 0x92, 0x34, 7, 0x60, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0xe0, 0x41];
const VP9_KEYFRAME: &[u8] =
    &[0xaa, 0x92, 0x34, 0x01, 5, 0x38, 0x01, 0x40, 0x00, 0xb4, 0x02, 0x80, 0x01, 0x68, 1, 0x04, 1, 0x83];
const AV1_KEYFRAME: &[u8] = &[0x28, 3, 0x08, 0, 0, 0x34, 0x48, 0x10];

#[test]
fn vp8_keyframe_with_all_fields_is_read() {
    let vp8 = Vp8::parse(VP8_KEYFRAME).unwrap();
    assert!(vp8.keyframe && vp8.start_of_frame && vp8.layer_sync && !vp8.non_reference);
    assert_eq!(vp8.picture_id, Some(PictureId { value: 0x1234, wide: true, at: 2 }));
    assert_eq!(vp8.tl0_pic_idx, Some(Tl0PicIdx { value: 7, at: 4 }));
    assert_eq!((vp8.temporal, vp8.key_idx), (Some(1), None));
    assert_eq!((vp8.resolution, vp8.header_len), (Some((640, 480)), 6));
}

#[test]
fn vp8_ids_are_rewritten_in_their_own_width() {
    let mut payload = VP8_KEYFRAME.to_vec();
    let vp8 = Vp8::parse(&payload).unwrap();
    vp8.picture_id.unwrap().rewrite(&mut payload, 0xffff).unwrap();
    vp8.tl0_pic_idx.unwrap().rewrite(&mut payload, 99).unwrap();
    let again = Vp8::parse(&payload).unwrap();
    assert_eq!((again.picture_id.unwrap().value, again.tl0_pic_idx.unwrap().value), (0x7fff, 99));
    assert_eq!(payload[5..], VP8_KEYFRAME[5..]);

    let mut narrow = [0x80, 0x80, 0x05, 0x01];
    let id = Vp8::parse(&narrow).unwrap().picture_id.unwrap();
    assert_eq!(id, PictureId { value: 5, wide: false, at: 2 });
    id.rewrite(&mut narrow, 0x00ff).unwrap();
    assert_eq!(narrow, [0x80, 0x80, 0x7f, 0x01]);
    assert_eq!(id.rewrite(&mut narrow[..2], 1), None);
}

#[test]
fn vp8_other_packets_are_no_keyframes() {
    let keyframe = |payload: &[u8]| describe(Codec::Vp8, payload).keyframe;
    assert!(keyframe(&[0x10, 0x00]));
    assert!(!keyframe(&[0x10, 0x01]), "interframe");
    assert!(!keyframe(&[0x00, 0x00]), "continuation");
    assert!(!keyframe(&[0x11, 0x00]), "second partition");
    for len in 0..=6 {
        assert_eq!(Vp8::parse(&VP8_KEYFRAME[..len]), None, "cut to {len}");
    }
    assert_eq!(Vp8::parse(&VP8_KEYFRAME[..9]).unwrap().resolution, None);
}

#[test]
fn vp9_keyframe_with_scalability_structure_is_read() {
    let vp9 = Vp9::parse(VP9_KEYFRAME).unwrap();
    assert!(vp9.keyframe() && vp9.start_of_frame && vp9.inter_layer && !vp9.end_of_frame && !vp9.flexible);
    assert_eq!(vp9.picture_id, Some(PictureId { value: 0x1234, wide: true, at: 1 }));
    assert_eq!(vp9.tl0_pic_idx, Some(Tl0PicIdx { value: 5, at: 4 }));
    assert_eq!((vp9.temporal, vp9.spatial, vp9.switching_up), (Some(0), Some(0), false));
    assert_eq!((vp9.spatial_count, vp9.resolution), (Some(2), Some((640, 360))));
    assert_eq!(vp9.header_len, VP9_KEYFRAME.len() - 1);
    for len in 0..VP9_KEYFRAME.len() {
        assert_eq!(Vp9::parse(&VP9_KEYFRAME[..len]), None, "cut to {len}");
    }
}

#[test]
fn vp9_layers_references_and_upper_spatial_layers() {
    // Flexible, predicted, layers 2/1, two references.
    let vp9 = Vp9::parse(&[0xf4, 0x05, 0x52, 0x03, 0x04, 0xaa]).unwrap();
    assert_eq!((vp9.temporal, vp9.spatial, vp9.switching_up, vp9.tl0_pic_idx), (Some(2), Some(1), true, None));
    assert_eq!((vp9.header_len, vp9.keyframe()), (5, false));
    assert_eq!(Vp9::parse(&[0xf4, 0x05, 0x52, 0x03, 0x05, 0x07, 0xaa]), None, "more than three references");
    // Not predicted, but of spatial layer 1: it needs layer 0.
    assert!(!describe(Codec::Vp9, &[0x28, 0x03, 0x01, 0xaa]).keyframe);
    assert!(describe(Codec::Vp9, &[0x28, 0x00, 0x01, 0xaa]).keyframe);
    assert!(!describe(Codec::Vp9, &[0x20, 0x00, 0x01, 0xaa]).keyframe, "continuation");
}

#[test]
fn h264_keyframes_are_found_in_every_packetisation() {
    let cases: [(&[u8], bool, bool); 10] = [
        (&[0x67, 0x42], true, true),
        (&[0x65, 0x88], true, true),
        (&[0x65, 0x08], true, false),
        (&[0x41, 0x9a], false, true),
        (&[0x41, 0x1a], false, false),
        (&[0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce], true, true),
        (&[0x78, 0, 2, 0x41, 0x9a], false, true),
        (&[0x7c, 0x85, 0x88], true, true),
        (&[0x7c, 0x05, 0x88], false, false),
        (&[0x7c, 0x81, 0x9a], false, true),
    ];
    for (payload, keyframe, start_of_frame) in cases {
        assert_eq!(H264::parse(payload), Some(H264 { keyframe, start_of_frame }), "{payload:x?}");
    }
    for wrong in [&[][..], &[0x78, 0], &[0x78, 0, 9, 0x67], &[0x78, 0, 0], &[0x7c, 0x85], &[0x60], &[0x79, 1, 2]] {
        assert_eq!(H264::parse(wrong), None, "{wrong:x?}");
    }
}

#[test]
fn h265_keyframes_are_found_in_every_packetisation() {
    let cases: [(&[u8], bool, bool, u8); 8] = [
        (&[0x40, 0x01, 0x0c], true, true, 0),
        (&[0x42, 0x01, 0x01], true, true, 0),
        (&[0x26, 0x01, 0xaf], true, true, 0),
        (&[0x26, 0x01, 0x2f], false, false, 0),
        (&[0x02, 0x03, 0xd0], false, true, 2),
        (&[0x60, 0x01, 0, 3, 0x40, 0x01, 0x0c, 0, 3, 0x42, 0x01, 0x01], true, true, 0),
        (&[0x62, 0x01, 0x93, 0xaf], true, true, 0),
        (&[0x62, 0x01, 0x13, 0xaf], false, false, 0),
    ];
    for (payload, keyframe, start_of_frame, temporal) in cases {
        assert_eq!(H265::parse(payload), Some(H265 { keyframe, start_of_frame, temporal }), "{payload:x?}");
    }
    for wrong in [&[][..], &[0x40], &[0x40, 0x00, 1], &[0x60, 0x01, 0, 9, 1], &[0x62, 0x01, 0x93], &[0x64, 0x01, 1]] {
        assert_eq!(H265::parse(wrong), None, "{wrong:x?}");
    }
}

#[test]
fn av1_new_sequence_is_a_keyframe() {
    let av1 = Av1::parse(AV1_KEYFRAME).unwrap();
    assert!(av1.keyframe() && av1.new_sequence && av1.sequence_header && av1.start_of_frame);
    assert_eq!((av1.temporal, av1.spatial), (Some(2), Some(1)));
    assert!(!describe(Codec::Av1, &[0x10, 0x30, 0]).keyframe, "a frame alone");
    assert!(!describe(Codec::Av1, &[0x90, 0x08, 0]).keyframe, "the rest of an OBU looks like any");
    for wrong in [&[][..], &[0x28], &[0x98, 0x08], &[0x20, 9, 0x08], &[0x30, 1, 0x08], &[0x00, 0x80, 0x80]] {
        assert_eq!(Av1::parse(wrong), None, "{wrong:x?}");
    }
}

#[test]
fn audio_has_no_keyframes() {
    for codec in [Codec::Opus, Codec::Pcmu, Codec::Pcma, Codec::G722] {
        assert_eq!(describe(codec, &[0]), Description { start_of_frame: true, ..Description::default() });
    }
}

/// Two temporal layers in two decode targets, one chain, 640x360, target 0 alone active.
fn structure_value() -> Vec<u8> {
    let mut bits = Pack::default();
    bits.put(1, 1).put(0, 1).put(62, 6).put(0x1234, 16);
    bits.put(0b11000, 5);
    bits.put(62, 6).put(1, 5);
    // Layers: T0, T0, T1, end.
    bits.put(0, 2).put(1, 2).put(3, 2);
    // Indications, target 0 first: switch/switch, required/required, absent/discardable.
    bits.put(0b1010, 4).put(0b1111, 4).put(0b0001, 4);
    // Frame differences: none; 4; 2 and 6.
    bits.put(0, 1).put(1, 1).put(3, 4).put(0, 1).put(1, 1).put(1, 4).put(1, 1).put(5, 4).put(0, 1);
    // Chains: one, of ns(3); both targets under it, in no bits; three differences.
    bits.put(0b10, 2).put(0, 4).put(4, 4).put(2, 4);
    bits.put(1, 1).put(639, 16).put(359, 16);
    bits.put(0b01, 2);
    bits.bytes
}

#[test]
fn dependency_structure_is_read() {
    let value = structure_value();
    let descriptor = DependencyDescriptor::parse(&value).unwrap();
    assert!(descriptor.keyframe() && descriptor.start_of_frame && !descriptor.end_of_frame);
    assert_eq!((descriptor.template_id, descriptor.frame_number), (62, 0x1234));
    let structure = Structure::parse(&value).unwrap();
    assert_eq!((structure.template_id_offset, structure.templates.len()), (62, 3));
    assert_eq!(&structure.targets[..], &[(0, 0), (0, 1)]);
    assert_eq!(&structure.resolutions[..], &[(640, 360)]);
    assert_eq!(descriptor.active_targets(&value, &structure), Some(0b01));
    let upper = &structure.templates[2];
    assert_eq!((upper.spatial, upper.temporal), (0, 1));
    assert!(!upper.is_for_target(0) && upper.is_for_target(1));
    assert!(!upper.is_for_target(usize::MAX));
    for len in 0..value.len() {
        assert_eq!(Structure::parse(&value[..len]), None, "cut to {len}");
    }
}

#[test]
fn later_descriptors_point_into_the_structure() {
    let structure = Structure::parse(&structure_value()).unwrap();
    // Template ids wrap after 63: 62, 63, 0.
    let value = [0x40, 0x12, 0x35];
    let descriptor = DependencyDescriptor::parse(&value).unwrap();
    assert!(!descriptor.keyframe() && descriptor.end_of_frame);
    assert_eq!(structure.template(&descriptor).map(|template| template.temporal), Some(1));
    assert_eq!(descriptor.active_targets(&value, &structure), None);
    let beyond = DependencyDescriptor::parse(&[0x01, 0, 0]).unwrap();
    assert_eq!(structure.template(&beyond), None);
    let value = [0x80, 0x12, 0x35, 0b0100_0110];
    let descriptor = DependencyDescriptor::parse(&value).unwrap();
    assert_eq!(descriptor.active_targets(&value, &structure), Some(0b11));
    assert_eq!(DependencyDescriptor::parse(&[0x80, 0]), None);
}

#[test]
fn structure_without_an_end_is_refused() {
    let mut bits = Pack::default();
    bits.put(0x80_0000, 24).put(0b10000, 5).put(0, 11);
    for _ in 0..300 {
        bits.put(0, 2);
    }
    assert_eq!(Structure::parse(&bits.bytes), None);
}

#[test]
fn random_bytes_do_no_harm() {
    let structure_value = structure_value();
    let structure = Structure::parse(&structure_value).unwrap();
    let mut random = XorShift(11);
    let h264 = &[0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce][..];
    let h265 = &[0x60, 0x01, 0, 3, 0x40, 0x01, 0x0c, 0, 3, 0x42, 0x01, 0x01][..];
    hammer(&[VP8_KEYFRAME, VP9_KEYFRAME, h264, h265, AV1_KEYFRAME, &structure_value], |bytes| {
        for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::H265, Codec::Av1, Codec::Opus] {
            let _ = describe(codec, bytes);
        }
        let mut payload = bytes.to_vec();
        if let Some(vp8) = Vp8::parse(bytes) {
            assert!(vp8.header_len < bytes.len());
            let rewritten = vp8.picture_id.map(|id| id.rewrite(&mut payload, random.next() as u16));
            assert_ne!(rewritten, Some(None));
        }
        if let Some(descriptor) = DependencyDescriptor::parse(bytes) {
            let _ = structure.template(&descriptor);
            let _ = descriptor.active_targets(bytes, &structure);
        }
        if let Some(structure) = Structure::parse(bytes) {
            assert!(structure.templates.len() <= 64 && structure.targets.len() <= 32);
        }
    });
}

/// Writes bits, most significant first.
#[derive(Default)]
struct Pack {
    bytes: Vec<u8>,
    count: usize,
}

impl Pack {
    fn put(&mut self, value: u32, width: usize) -> &mut Self {
        for bit in (0..width).rev() {
            if self.count.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= ((value >> bit & 1) as u8) << (7 - self.count % 8);
            self.count += 1;
        }
        self
    }
}
