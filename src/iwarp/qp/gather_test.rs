use super::*;

/// One that has been used.
fn gather() -> Gather {
    let mut gather = Gather::new(&Arc::default());
    assert!(gather.grow());
    gather
}

fn frame(gather: &mut Gather, staged: &[u8], referred: &[u8]) -> bool {
    if !gather.reserve(staged.len() + 4, 1) {
        return false;
    }
    gather.stage(staged.len()).copy_from_slice(staged);
    gather.refer(referred.as_ptr(), referred.len());
    gather.stage(4).copy_from_slice(b"tail");
    gather.end_frame();
    true
}

fn left(gather: &Gather) -> Vec<u8> {
    // SAFETY: the memory the pieces refer to is borrowed by the test until its end.
    let slices =
        gather.pieces().iter().map(|one| unsafe { std::slice::from_raw_parts(one.ptr(), one.len()) });
    slices.flatten().copied().collect()
}

#[test]
fn staged_neighbours_are_one_piece() {
    let mut gather = gather();
    let memory = [7; 10];
    assert!(frame(&mut gather, b"head", &memory));
    assert!(frame(&mut gather, b"HEAD", &[]));
    assert_eq!(gather.pieces().iter().map(Piece::len).collect::<Vec<_>>(), [4, 10, 12]);
    assert_eq!(left(&gather), [&b"head"[..], &memory, b"tailHEADtail"].concat());
    assert_eq!(gather.remaining(), 26);
}

#[test]
fn sealing_at_every_octet_finishes_the_frame_begun() {
    let memory = [7; 10];
    let whole = [&b"head"[..], &memory, b"tailHEADtail"].concat();
    for cut in 0..=whole.len() {
        let mut gather = gather();
        assert!(frame(&mut gather, b"head", &memory) && frame(&mut gather, b"HEAD", &[]));
        for _ in 0..cut {
            gather.advance(1);
        }
        assert_eq!(left(&gather), whole[cut..]);
        gather.seal(80);
        let end = [0, 18, 26].into_iter().find(|end| *end >= cut).unwrap();
        assert_eq!(left(&gather), whole[cut..end]);
        assert_eq!((gather.remaining(), gather.is_empty()), (end - cut, end == cut));
        assert!(gather.reserve(80, 0));
        gather.stage(80).fill(1);
        gather.end_frame();
        assert_eq!(left(&gather), [&whole[cut..end], &[1; 80]].concat());
    }
}

#[test]
fn a_gather_is_bounded_in_every_direction() {
    let mut small = Gather::new(&Arc::default());
    for stage in [FIRST_STAGE, SMALL_STAGE, SMALL_STAGE] {
        let fitting = std::iter::from_fn(|| frame(&mut small, &[1; 60], &[]).then_some(())).count();
        assert_eq!((fitting, small.remaining()), (stage / 64, stage));
        small.advance(stage);
    }
    assert!(!small.holds_lease());
    let mut frames = gather();
    while frame(&mut frames, b"h", &[]) {}
    assert_eq!(frames.frame_ends.len(), MAX_FRAMES);
    let mut pieces = gather();
    while frame(&mut pieces, b"h", &[1]) {}
    assert!(pieces.pieces().len() <= MAX_PIECES && pieces.pieces().len() > MAX_PIECES - 3);
    let mut octets = gather();
    let memory = vec![0; 65_000];
    while frame(&mut octets, b"h", &memory) {}
    assert!((MAX_BYTES..MAX_BYTES + 65_100).contains(&octets.remaining()));
    for gather in [&small, &frames, &pieces, &octets] {
        let (pieces, frames) = gather.capacity();
        assert!(pieces <= MAX_PIECES && frames <= MAX_FRAMES.next_power_of_two());
    }
}

#[test]
fn large_stages_are_leased_at_the_beginning_and_given_back() {
    let pool = Arc::new(StagePool::default());
    let mut gather = Gather::new(&pool);
    assert!(frame(&mut gather, &[1; 100], &[]));
    assert!(!frame(&mut gather, &[1; SMALL_STAGE], &[]), "what is staged stays in one place");
    gather.advance(gather.remaining());
    assert!(frame(&mut gather, &[1; SMALL_STAGE], &[]) && gather.holds_lease());
    assert!(frame(&mut gather, &[2; BIG_STAGE - SMALL_STAGE - 8], &[]));
    assert!(!frame(&mut gather, &[3], &[]));
    gather.advance(gather.remaining() - 1);
    assert!(gather.holds_lease() && !gather.is_empty());
    gather.advance(1);
    assert!(!gather.holds_lease() && gather.is_empty());
    assert_eq!(pool.free.lock().len(), 1);
    let mut many: Vec<_> = (0..20).map(|_| Gather::new(&pool)).collect();
    for one in &mut many {
        assert!(frame(one, &[1; SMALL_STAGE], &[]));
    }
    for one in &mut many {
        one.advance(one.remaining());
    }
    assert_eq!(pool.free.lock().len(), KEPT_STAGES);
    assert!(!gather.reserve(BIG_STAGE + 1, 0));
}
