//! Codes as bytes: a stream of bits, the first code in the highest bits of the first byte. (Of codes of 4 bits the first
//! is in the high half, as bitsandbytes has them.)

/// Bytes of `count` codes of `bits` bits.
pub fn packed_len(bits: usize, count: usize) -> usize {
    (bits * count).div_ceil(8)
}

/// Packs codes of 1 to 8 bits. Bits that are left over are 0.
///
/// # Panics
/// When `bytes` is not [`packed_len`] long.
pub fn pack_codes(bits: usize, codes: &[u8], bytes: &mut [u8]) {
    assert!((1..=8).contains(&bits), "codes of 1 to 8 bits");
    assert_eq!(bytes.len(), packed_len(bits, codes.len()), "bytes of codes");
    let (mut held, mut count) = (0u32, 0);
    let mut bytes = bytes.iter_mut();
    let mut put = |byte: u32| {
        if let Some(to) = bytes.next() {
            *to = byte as u8;
        }
    };
    for &code in codes {
        held = held << bits | u32::from(code);
        count += bits;
        if count >= 8 {
            count -= 8;
            put(held >> count);
            held &= (1 << count) - 1;
        }
    }
    if count > 0 {
        put(held << (8 - count));
    }
}

/// Unpacks codes of 1 to 8 bits.
///
/// # Panics
/// When `bytes` is not [`packed_len`] long.
pub fn unpack_codes(bits: usize, bytes: &[u8], codes: &mut [u8]) {
    assert!((1..=8).contains(&bits), "codes of 1 to 8 bits");
    assert_eq!(bytes.len(), packed_len(bits, codes.len()), "bytes of codes");
    let (mut held, mut count) = (0u32, 0);
    let mut bytes = bytes.iter();
    for code in codes {
        if count < bits {
            held = held << 8 | u32::from(*bytes.next().unwrap_or(&0));
            count += 8;
        }
        count -= bits;
        *code = (held >> count) as u8;
        held &= (1 << count) - 1;
    }
}
