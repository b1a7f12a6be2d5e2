//! Calls that may be on their way: RFC 8166 section 3.3.

/// What a requester may have outstanding. One call until the first grant has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credits {
    most: u32,
    granted: u32,
    used: u32,
}

impl Credits {
    /// At most `most`, whatever is granted: so many receives there are for replies.
    pub(super) fn new(most: u32) -> Self {
        Self { most, granted: 1, used: 0 }
    }

    /// Uses one, if there is one.
    pub(super) fn take(&mut self) -> bool {
        let free = self.used < self.granted;
        self.used += u32::from(free);
        free
    }

    /// A call is over.
    pub(super) fn give_back(&mut self) {
        self.used = self.used.saturating_sub(1);
    }

    /// What a reply grants; 0 would be an end without a word, so it means 1 (section 4.2.3 has it at least 1).
    pub(super) fn grant(&mut self, credits: u32) {
        self.granted = credits.clamp(1, self.most);
    }

    /// Calls that may be outstanding at most.
    pub(super) fn most(&self) -> u32 {
        self.most
    }

    /// Calls that are outstanding.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// What is granted now.
    pub(super) fn granted(&self) -> u32 {
        self.granted
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn room(credits: &Credits) -> u32 {
        let mut copy = *credits;
        let mut room = 0;
        while copy.take() {
            room += 1;
        }
        room
    }

    #[test]
    fn one_until_the_first_grant() {
        let mut credits = Credits::new(16);
        assert_eq!(room(&credits), 1);
        assert!(credits.take() && !credits.take());
        credits.give_back();
        credits.grant(4);
        assert_eq!(room(&credits), 4);
    }

    #[test]
    fn grants_are_kept_within_bounds() {
        let mut credits = Credits::new(16);
        for (granted, left) in [(0, 1), (1, 1), (16, 16), (17, 16), (u32::MAX, 16)] {
            credits.grant(granted);
            assert_eq!((room(&credits), credits.granted()), (left, left), "{granted}");
        }
    }

    #[test]
    fn a_grant_below_what_is_used_waits() {
        let mut credits = Credits::new(16);
        credits.grant(4);
        assert!((0..4).all(|_| credits.take()));
        credits.grant(2);
        assert_eq!((credits.used(), credits.granted()), (4, 2));
        for left in [0, 0, 1, 2, 2] {
            credits.give_back();
            assert_eq!(room(&credits), left);
        }
    }
}
