//! The transitions as a table: what happens, and the state and the answer after it.

use super::*;

const TIMES: JudgeTimes = JudgeTimes {
    lease_duration: Duration::from_secs(5),
    renew_deadline: Duration::from_secs(3),
    retry_period: Duration::from_millis(500),
};
const OWN: &str = "a_1";

/// An event, or an expectation in between. Times are in milliseconds.
#[derive(Debug, Clone, Copy)]
enum Is {
    /// Time passes, with a look at the same Pods ten times a second.
    Wait(u64),
    /// Time passes as in `Wait`, and the Lease is renewed each retry period.
    Hold(u64),
    /// Time passes, and the process does not run.
    Frozen(u64),
    /// The Pods of the release: `*` after a name is the label, `!` a deletion, `+` the token of the last barrier.
    Pods(&'static str),
    /// The cache becomes fresh, or is it no longer.
    Fresh(bool),
    /// The cache lacks events, or does so no longer.
    Complete(bool),
    /// Bindings that were let through and not seen.
    Unseen(usize),
    /// A round begins, and its first call is due.
    Round(Call),
    /// A further call is due.
    Then(Call),
    /// The Lease is read: its holder has renewed it.
    Read(&'static str),
    /// The Lease is read: its holder has written a duration of an hour.
    ReadLong(&'static str),
    /// The Lease is read: somebody has taken its holder's name out.
    Emptied,
    /// The Lease is read as it was.
    Same,
    /// The Lease is read, and is not there.
    Gone,
    /// The last call has succeeded.
    Done,
    /// The last call met another version.
    Conflict,
    /// The apiserver refuses the last call.
    Refused,
    /// SIGTERM.
    Sigterm,
    /// The answer in between.
    Turn(JudgeTurn),
    /// The state in between.
    State(JudgeState),
}

/// A call, without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Read,
    Acquire,
    Renew,
    Mark,
    Release,
    Nothing,
}

use Call::{Acquire, Mark, Nothing, Release, Renew};
use Is::*;
use JudgeState::*;
use JudgeTurn::*;

struct Play {
    judge: Judge,
    now: Instant,
    sight: JudgeSight,
    stamp: u64,
    last: Option<LeaseStep>,
    started: Instant,
    /// The last time at which a living replica was known to judge.
    judged_at: Instant,
}

impl Play {
    fn new(own_pod: Option<&str>) -> Self {
        let now = Instant::now();
        let judge = Judge::new(OWN.to_owned(), own_pod.map(str::to_owned), TIMES, now);
        let sight = JudgeSight { may_stand: true, is_complete: true, ..JudgeSight::default() };
        Self { judge, now, sight, stamp: 0, last: None, started: now, judged_at: now }
    }

    fn record(&mut self, holder: &str, is_renewed: bool) -> LeaseRecord {
        self.stamp += u64::from(is_renewed);
        LeaseRecord {
            holder: holder.to_owned(),
            is_given_back: holder.is_empty(),
            duration: TIMES.lease_duration,
            stamp: self.stamp.to_string(),
        }
    }

    fn look(&mut self) {
        self.judge.look(self.sight.clone(), self.now);
        self.note_judge();
    }

    fn turn(&mut self) -> JudgeTurn {
        self.judge.notice(self.now);
        self.judge.turn(self.now)
    }

    fn expect(&mut self, expected: Call, at: &str) {
        self.last = self.judge.next_step(self.now);
        self.started = self.now;
        let call = match &self.last {
            Some(LeaseStep::Read) => Call::Read,
            Some(LeaseStep::Acquire) => Acquire,
            Some(LeaseStep::Renew) => Renew,
            Some(LeaseStep::Mark(_)) => Mark,
            Some(LeaseStep::Release) => Release,
            None => Nothing,
        };
        assert_eq!(call, expected, "{at}: {:?}", self.judge);
    }

    fn note_judge(&mut self) {
        if self.is_judged() {
            self.judged_at = self.now;
        }
    }

    /// Returns true if a living replica is known to judge: this one or another.
    fn is_judged(&self) -> bool {
        match &self.judge.lease {
            _ if self.judge.is_judging() => self.now < self.judge.renewed_at + TIMES.renew_deadline,
            LeaseSight::Seen(record, at) => {
                self.judge.is_living(&record.holder) && self.now < *at + record.duration
            }
            _ => false,
        }
    }

    fn is(&mut self, event: Is, at: &str) {
        match event {
            Wait(ms) => {
                let end = self.now + Duration::from_millis(ms);
                while self.now < end {
                    self.now = end.min(self.now + Duration::from_millis(100));
                    self.look();
                }
            }
            Hold(ms) => {
                for begin in (0..ms).step_by(500) {
                    self.is(Round(Renew), at);
                    self.is(Done, at);
                    self.is(Wait((ms - begin).min(500)), at);
                }
            }
            Frozen(ms) => self.now += Duration::from_millis(ms),
            Pods(pods) => {
                let token = format!("{OWN}/{}", self.judge.takeovers);
                self.sight.replicas = pods.split_whitespace().map(|pod| replica(pod, &token)).collect();
                self.look();
            }
            Fresh(is_fresh) => {
                self.sight.may_stand = is_fresh;
                self.look();
            }
            Complete(is_complete) => {
                self.sight.is_complete = is_complete;
                self.look();
            }
            Unseen(bindings) => {
                self.sight.unseen_bindings = bindings;
                self.look();
            }
            Round(call) => {
                self.judge.begin_round();
                self.expect(call, at);
            }
            Then(call) => self.expect(call, at),
            Read(holder) => {
                let record = self.record(holder, true);
                self.judge.read(Some(record), self.now);
            }
            ReadLong(holder) => {
                let record =
                    LeaseRecord { duration: Duration::from_secs(3_600), ..self.record(holder, true) };
                self.judge.read(Some(record), self.now);
            }
            Emptied => {
                let record = LeaseRecord { is_given_back: false, ..self.record("", true) };
                self.judge.read(Some(record), self.now);
            }
            Same => {
                let LeaseSight::Seen(record, _) = &self.judge.lease else { panic!("{at}: no Lease") };
                let record = record.clone();
                self.judge.read(Some(record), self.now);
            }
            Gone => self.judge.read(None, self.now),
            Done => match self.last.take() {
                Some(LeaseStep::Mark(token)) => self.judge.marked(Some(token), self.now),
                Some(LeaseStep::Release) => {
                    let record = self.record("", true);
                    self.judge.written(record, self.started, self.now);
                }
                Some(_) => {
                    let record = self.record(OWN, true);
                    self.judge.written(record, self.started, self.now);
                }
                None => panic!("{at}: no call"),
            },
            Conflict => self.judge.conflict(),
            Refused => self.judge.marked(None, self.now),
            Sigterm => {
                self.judge.end(self.now);
                self.look();
            }
            Turn(expected) => assert_eq!(self.turn(), expected, "{at}: {:?}", self.judge),
            State(expected) => assert_eq!(self.judge.state(), expected, "{at}: {:?}", self.judge),
        }
        self.note_judge();
    }
}

fn replica(notation: &str, token: &str) -> Replica {
    let name = notation.trim_end_matches(['*', '!', '+']);
    Replica {
        uid: format!("uid-{name}"),
        name: name.to_owned(),
        is_terminating: notation.contains('!'),
        is_active: notation.contains('*'),
        token: if notation.contains('+') { token.to_owned() } else { String::new() },
        ..Replica::default()
    }
}

/// From nothing to the judge, with another replica beside it.
const JUDGE: &[Is] =
    &[Pods("a b"), Round(Call::Read), Gone, Then(Acquire), Done, Then(Mark), Done, Pods("a*+ b")];

fn play(own_pod: Option<&str>, name: &str, events: &[&[Is]]) -> Play {
    let mut play = Play::new(own_pod);
    for (index, event) in events.concat().into_iter().enumerate() {
        play.is(event, &format!("{name}, event {index} {event:?}"));
    }
    play
}

#[test]
fn every_transition() {
    let table: &[(&str, &[Is], JudgeState, JudgeTurn)] = &[
        // Standby.
        ("nothing is known", &[Turn(Denies)], Standby, Denies),
        ("nothing can be read", &[Pods("a b"), Wait(4_900), Turn(Denies), Wait(100)], Standby, Allows),
        ("a living holder", &[Pods("a b*"), Read("b_1"), Wait(4_900)], Standby, Denies),
        (
            "a living holder that renews",
            &[Pods("a b*"), Read("b_1"), Wait(4_000), Read("b_1"), Wait(4_000), Read("b_1"), Wait(4_000)],
            Standby,
            Denies,
        ),
        (
            "the Lease of a living holder cannot be read any more",
            &[Pods("a b*"), Read("b_1"), Wait(5_000), Turn(Denies), Wait(4_900), Turn(Denies), Wait(100)],
            Standby,
            Allows,
        ),
        (
            "a foreign holder that renews",
            &[Pods("a b"), Read("x_1"), Wait(3_000), Read("x_1"), Wait(1_900), Turn(Denies), Wait(100)],
            Standby,
            Allows,
        ),
        (
            "a foreign holder without a Pod in its name",
            &[Pods("a b"), Read("b"), Wait(4_900)],
            Standby,
            Denies,
        ),
        (
            "the Pod of the holder is being deleted",
            &[Pods("a b*"), Read("b_1"), Pods("a b!*"), Wait(4_900), Turn(Denies), Read("b_1"), Wait(100)],
            Standby,
            Allows,
        ),
        (
            "a living holder with a Lease of an hour, that is not renewed",
            &[Pods("a b*"), ReadLong("b_1"), Wait(10_900), Turn(Denies), Wait(100)],
            Standby,
            Allows,
        ),
        (
            "the label cannot be moved to the holder: nobody else is asked",
            &[
                Pods("a* b"),
                Read("b_1"),
                Wait(4_900),
                Read("b_1"),
                Turn(Denies),
                Wait(200),
                Turn(Allows),
                Pods("a b*"),
            ],
            Standby,
            Denies,
        ),
        ("a Pod of another release is foreign", &[Pods("a"), Read("b_1"), Wait(5_000)], Standby, Allows),
        (
            "a stale replica does not stand",
            &[Pods("a"), Fresh(false), Round(Call::Read), Gone, Then(Nothing)],
            Standby,
            Denies,
        ),
        ("an unread Lease is not taken", &[Pods("a"), Round(Call::Read), Then(Nothing)], Standby, Denies),
        (
            "a valid Lease is not taken",
            &[Pods("a b"), Round(Call::Read), Read("b_1"), Then(Nothing)],
            Standby,
            Denies,
        ),
        // To TakingOver.
        ("there is no Lease", &[Pods("a"), Round(Call::Read), Gone, Then(Acquire), Done], TakingOver, Denies),
        (
            "a Lease that was given back",
            &[Pods("a b*"), Round(Call::Read), Read(""), Then(Acquire), Done, Then(Mark)],
            TakingOver,
            Denies,
        ),
        (
            "a holder that died: its Lease and a second are waited out",
            &[
                Pods("a b*"),
                Round(Call::Read),
                Read("b_1"),
                Then(Nothing),
                Wait(4_900),
                Round(Call::Read),
                Same,
                Then(Nothing),
                Wait(100),
                Round(Call::Read),
                Same,
                Then(Acquire),
                Done,
                Then(Nothing),
                Wait(900),
                Then(Nothing),
                Wait(100),
                Then(Mark),
            ],
            TakingOver,
            Denies,
        ),
        (
            "the own container was restarted: a second is waited out",
            &[
                Pods("a* b"),
                Round(Call::Read),
                Read("a_0"),
                Turn(Denies),
                Then(Acquire),
                Done,
                Then(Nothing),
                Wait(900),
                Then(Nothing),
                Wait(100),
                Then(Mark),
            ],
            TakingOver,
            Denies,
        ),
        (
            "the holder's name was taken out: it may still judge",
            &[
                Pods("a b*"),
                Round(Call::Read),
                Emptied,
                Then(Acquire),
                Done,
                Hold(3_900),
                Then(Nothing),
                Wait(100),
                Then(Mark),
            ],
            TakingOver,
            Denies,
        ),
        (
            "the Lease was deleted: its holder may still judge",
            &[
                Pods("a b*"),
                Round(Call::Read),
                Read("b_1"),
                Wait(500),
                Round(Call::Read),
                Gone,
                Then(Acquire),
                Done,
                Hold(3_400),
                Then(Nothing),
                Wait(100),
                Then(Mark),
            ],
            TakingOver,
            Denies,
        ),
        (
            "the Lease was deleted before it was ever read, and a replica has the label",
            &[
                Pods("a b*"),
                Round(Call::Read),
                Gone,
                Then(Acquire),
                Done,
                Hold(3_900),
                Then(Nothing),
                Wait(100),
                Then(Mark),
            ],
            TakingOver,
            Denies,
        ),
        (
            "another is faster",
            &[
                Pods("a b"),
                Round(Call::Read),
                Gone,
                Then(Acquire),
                Conflict,
                Then(Call::Read),
                Read("b_1"),
                Then(Nothing),
            ],
            Standby,
            Denies,
        ),
        // To Judging.
        ("the token has come", &[], Judging, Judges),
        (
            "the token of another takeover",
            &[
                Conflict,
                Then(Call::Read),
                Read(""),
                Round(Call::Read),
                Same,
                Then(Acquire),
                Done,
                Then(Mark),
                Done,
                Wait(100),
            ],
            TakingOver,
            Denies,
        ),
    ];
    for (name, events, state, turn) in table {
        let begins_as_judge = ["the token has come", "the token of another takeover"].contains(name);
        let before = if begins_as_judge { JUDGE } else { &[] };
        let mut play = play(Some("a"), name, &[before, events]);
        assert_eq!((play.judge.state(), play.turn()), (*state, *turn), "{name}: {:?}", play.judge);
    }
}

#[test]
fn the_barrier() {
    let taken: &[Is] = &[Pods("a b"), Round(Call::Read), Gone, Then(Acquire), Done];
    let table: &[(&str, &[Is], JudgeState)] = &[
        ("no token", &[Then(Mark), Done, Pods("a* b"), Wait(400)], TakingOver),
        (
            "the token, while the cache lacks events",
            &[Then(Mark), Done, Complete(false), Pods("a*+ b")],
            TakingOver,
        ),
        (
            "and then it lacks none",
            &[Then(Mark), Done, Complete(false), Pods("a*+ b"), Complete(true)],
            Judging,
        ),
        (
            "a failure is tried again in the next round",
            &[Then(Mark), Then(Nothing), Round(Renew), Done, Then(Mark), Done, Pods("a*+ b")],
            Judging,
        ),
        (
            "no right to write the own Pod: two seconds",
            &[Then(Mark), Refused, Hold(1_900), State(TakingOver), Wait(100)],
            Judging,
        ),
        (
            "the watch brings nothing: one lease duration",
            &[Then(Mark), Done, Hold(4_900), State(TakingOver), Wait(100)],
            Judging,
        ),
        (
            "the write fails: one lease duration",
            &[Then(Mark), Hold(4_900), State(TakingOver), Wait(100)],
            Judging,
        ),
        ("the Lease is not renewed", &[Then(Mark), Done, Wait(3_000), Pods("a*+ b")], Standby),
    ];
    for (name, events, state) in table {
        let play = play(Some("a"), name, &[taken, events]);
        assert_eq!(play.judge.state(), *state, "{name}: {:?}", play.judge);
    }
    // Without a Pod.
    let taken: &[Is] = &[Fresh(true), Round(Call::Read), Gone, Then(Acquire), Done, Then(Nothing)];
    let waits: &[Is] = &[Hold(1_900), State(TakingOver), Wait(100)];
    let mut play = play(None, "no POD_NAME", &[taken, waits]);
    assert_eq!((play.judge.state(), play.turn()), (Judging, Judges));
}

/// Without a Pod of its own, a process sees no release.
#[test]
fn without_a_pod_the_lease_alone_decides() {
    let mut play = play(None, "no POD_NAME", &[&[Read("x_1"), Wait(4_900), Read("x_1"), Wait(4_900)]]);
    assert_eq!(play.turn(), Denies);
    play.is(Wait(100), "");
    assert_eq!(play.turn(), Denies, "one lease duration begins");
    play.is(Wait(5_000), "");
    assert_eq!(play.turn(), Allows);
}

#[test]
fn the_judge_stops() {
    let table: &[(&str, &[Is], JudgeState, JudgeTurn)] = &[
        ("it renews", &[Wait(2_900), Round(Renew), Done, Wait(2_900)], Judging, Judges),
        ("the apiserver is away", &[Wait(3_000)], Standby, Denies),
        ("the apiserver stays away", &[Wait(7_900), Turn(Denies), Wait(100)], Standby, Allows),
        (
            "a slow write counts from its start",
            &[Round(Renew), Wait(2_000), Done, Wait(900), State(Judging), Wait(100)],
            Standby,
            Denies,
        ),
        ("a write took too long", &[Round(Renew), Wait(2_900), Wait(200), Done], Standby, Denies),
        (
            "another has taken the Lease",
            &[Round(Renew), Conflict, Then(Call::Read), Read("b_1"), Then(Nothing)],
            Standby,
            Denies,
        ),
        (
            "somebody wrote an annotation to the Lease",
            &[Round(Renew), Conflict, Then(Call::Read), Same, Then(Renew), Done],
            Judging,
            Judges,
        ),
        (
            "the Lease was deleted",
            &[Round(Renew), Conflict, Then(Call::Read), Gone, Then(Renew), Done],
            Judging,
            Judges,
        ),
        (
            "the Lease was deleted, and another is faster",
            &[
                Round(Renew),
                Conflict,
                Then(Call::Read),
                Gone,
                Then(Renew),
                Conflict,
                Then(Call::Read),
                Read("b_1"),
            ],
            Standby,
            Denies,
        ),
        (
            "a stranger writes the Lease",
            &[Round(Renew), Conflict, Then(Call::Read), Read("x_1"), Wait(4_900), Turn(Denies), Wait(100)],
            Standby,
            Allows,
        ),
        // It could not judge what it is asked.
        ("a watch fails", &[Fresh(false), Hold(4_900)], Judging, Judges),
        ("for one lease duration", &[Fresh(false), Hold(5_000)], HandingOver, Denies),
        ("and it stands by", &[Fresh(false), Hold(5_000), Wait(100), Then(Release), Done], Standby, Denies),
        ("a watch fails, and there is no other", &[Pods("a*+"), Fresh(false), Hold(9_000)], Judging, Judges),
        // Frozen.
        ("a short pause", &[Frozen(2_900)], Judging, Judges),
        ("a frozen process wakes", &[Frozen(3_000), Turn(Denies)], Standby, Denies),
        (
            "a frozen process wakes after long",
            &[Frozen(3_600_000), Turn(Denies), Wait(4_900), Turn(Denies), Wait(100)],
            Standby,
            Allows,
        ),
        (
            "and reads that another judges",
            &[Frozen(3_600_000), Pods("a b*"), Round(Call::Read), Read("b_1"), Wait(4_900)],
            Standby,
            Denies,
        ),
        // The apiserver is back, and nobody else has written the Lease.
        (
            "the apiserver is back",
            &[
                Wait(3_000),
                Round(Call::Read),
                Same,
                Then(Acquire),
                Done,
                Wait(1_000),
                Then(Mark),
                Done,
                Pods("a*+ b"),
            ],
            Judging,
            Judges,
        ),
        // The end.
        ("SIGTERM", &[Sigterm], HandingOver, Denies),
        ("the own Pod is being deleted", &[Pods("a!*+ b")], HandingOver, Denies),
        ("nothing is in flight", &[Sigterm, Then(Release), Done], Released, Denies),
        (
            "what was let through is awaited",
            &[Unseen(1), Sigterm, Then(Nothing), Wait(1_900), Then(Nothing), Unseen(0), Then(Release), Done],
            Released,
            Denies,
        ),
        (
            "also if a renewal was under way",
            &[
                Unseen(1),
                Round(Renew),
                Sigterm,
                Done,
                Then(Nothing),
                State(HandingOver),
                Unseen(0),
                Then(Release),
                Done,
            ],
            Released,
            Denies,
        ),
        ("for two seconds", &[Unseen(1), Sigterm, Wait(2_000), Then(Release), Done], Released, Denies),
        (
            "the Lease cannot be given back",
            &[Sigterm, Then(Release), Wait(4_900), State(HandingOver), Wait(100)],
            Released,
            Allows,
        ),
        (
            "the Lease is another's already",
            &[Sigterm, Then(Release), Conflict, Then(Call::Read), Read("b_1")],
            Released,
            Denies,
        ),
        (
            "an annotation on the Lease",
            &[Sigterm, Then(Release), Conflict, Then(Call::Read), Same, Then(Release), Done],
            Released,
            Denies,
        ),
        (
            "the Lease is gone",
            &[Sigterm, Then(Release), Conflict, Then(Call::Read), Gone, Then(Nothing)],
            Released,
            Denies,
        ),
        (
            "it never stands again",
            &[Sigterm, Then(Release), Done, Wait(500), Round(Call::Read), Same, Then(Nothing)],
            Released,
            Denies,
        ),
        (
            "nobody takes over",
            &[Sigterm, Then(Release), Done, Wait(4_900), Turn(Denies), Wait(100)],
            Released,
            Allows,
        ),
        (
            "another has taken over",
            &[Sigterm, Then(Release), Done, Round(Call::Read), Read("b_1"), Wait(4_900)],
            Released,
            Denies,
        ),
    ];
    for (name, events, state, turn) in table {
        let mut play = play(Some("a"), name, &[JUDGE, events]);
        assert_eq!((play.judge.state(), play.turn()), (*state, *turn), "{name}: {:?}", play.judge);
    }
}

/// Between the count of unseen bindings and the end of judging, another thread may have let a binding through.
#[test]
fn a_hand_over_counts_again() {
    let mut play = play(Some("a"), "judge", &[JUDGE]);
    play.judge.end(play.now);
    play.expect(Nothing, "before the next look");
    play.look();
    play.expect(Release, "after it");
    // The own Pod's deletion comes by the look itself.
    let mut play = self::play(Some("a"), "judge", &[JUDGE, &[Pods("a!*+ b")]]);
    play.expect(Nothing, "before the next look");
    play.look();
    play.expect(Release, "after it");
}

#[test]
fn an_end_before_it_judges() {
    let table: &[(&str, &[Is], JudgeState)] = &[
        ("in Standby", &[Pods("a b"), Sigterm], Released),
        ("the own Pod is gone", &[Pods("a b"), Pods("b")], Released),
        ("the own Pod has not come yet", &[Pods("b")], Standby),
        ("a list is not complete", &[Pods("a b"), Complete(false), Pods("b")], Standby),
        ("in Standby, by a deletion", &[Pods("a! b")], Released),
        (
            "while the Lease is acquired",
            &[
                Pods("a b"),
                Round(Call::Read),
                Gone,
                Then(Acquire),
                Sigterm,
                Done,
                Round(Call::Read),
                Same,
                Then(Release),
                Done,
            ],
            Released,
        ),
        (
            "in TakingOver",
            &[Pods("a b"), Round(Call::Read), Gone, Then(Acquire), Done, Sigterm, Then(Release), Done],
            Released,
        ),
    ];
    for (name, events, state) in table {
        let play = play(Some("a"), name, &[events]);
        assert_eq!(play.judge.state(), *state, "{name}: {:?}", play.judge);
        assert!(!play.judge.holds_record(), "{name}");
    }
}

#[test]
fn the_end_of_serving() {
    let table: &[(&str, &[Is], bool)] = &[
        ("it still judges", &[], false),
        ("it holds the Lease", &[Sigterm], false),
        ("the other has no label yet", &[Sigterm, Then(Release), Done, Wait(4_900)], false),
        ("for one lease duration", &[Sigterm, Then(Release), Done, Wait(5_000)], true),
        ("both have the label", &[Sigterm, Then(Release), Done, Pods("a*+ b*"), Wait(4_900)], false),
        (
            "the label is gone: the apiserver may not know",
            &[Sigterm, Then(Release), Done, Pods("a+ b*"), Wait(900)],
            false,
        ),
        ("the apiserver knows", &[Sigterm, Then(Release), Done, Pods("a+ b*"), Wait(1_000)], true),
        ("the own Pod is gone", &[Sigterm, Then(Release), Done, Pods("b*"), Wait(1_000)], true),
        ("there is no other", &[Pods("a*+"), Sigterm, Then(Release), Done], true),
        ("the other is being deleted, too", &[Pods("a*+ b!"), Sigterm, Then(Release), Done], true),
    ];
    for (name, events, is_handed_over) in table {
        let play = play(Some("a"), name, &[JUDGE, events]);
        assert_eq!(play.judge.is_handed_over(play.now), *is_handed_over, "{name}: {:?}", play.judge);
    }
    let standby = play(Some("a"), "a replica without the label", &[&[Pods("a b*"), Read("b_1"), Sigterm]]);
    assert!(standby.judge.is_handed_over(standby.now));
    let no_pod = play(None, "no POD_NAME", &[&[Sigterm]]);
    assert!(no_pod.judge.is_handed_over(no_pod.now));
}

#[test]
fn only_the_judge_puts_labels_right() {
    let fixes = |pods: &'static str, events: &[Is]| {
        let play = play(Some("a"), pods, &[JUDGE, &[Pods(pods)], events]);
        let fix = |fix: LabelFix| format!("{}{}", if fix.is_active { "+" } else { "-" }, fix.pod);
        play.judge.label_fixes().into_iter().map(fix).collect::<Vec<_>>()
    };
    assert!(fixes("a*+ b", &[]).is_empty());
    assert_eq!(fixes("a*+ b* c!* d", &[]), ["-b", "-c"]);
    assert_eq!(fixes("a+ b*", &[]), ["+a", "-b"]);
    assert!(fixes("b*", &[]).is_empty(), "without its own Pod it knows no release");
    assert!(fixes("a+ b*", &[Sigterm]).is_empty());
    assert!(fixes("a+ b*", &[Wait(3_000)]).is_empty());
}

#[test]
fn a_hand_over_is_looked_for_sooner() {
    let period = |events: &[Is]| play(Some("a"), "", &[events]).judge.round_period();
    assert_eq!(period(&[Pods("a b*"), Read("b_1")]), TIMES.retry_period);
    assert_eq!(period(&[Pods("a b!*"), Read("b_1")]), Duration::from_millis(100));
}

#[test]
fn times_are_checked_as_by_client_go() {
    assert!(TIMES.faults().is_empty());
    let zero = JudgeTimes {
        lease_duration: Duration::ZERO,
        renew_deadline: Duration::ZERO,
        retry_period: Duration::ZERO,
    };
    assert_eq!(zero.faults().len(), 5);
    let short = JudgeTimes { renew_deadline: Duration::from_millis(600), ..TIMES };
    assert_eq!(short.faults(), ["renewDeadline must be greater than retryPeriod*JitterFactor (1.2)"]);
    let equal = JudgeTimes { lease_duration: TIMES.renew_deadline, ..TIMES };
    assert_eq!(equal.faults(), ["leaseDuration must be greater than renewDeadline"]);
}

/// Whatever happens, and in whatever order: a denial is never later than one lease duration after the last time at which a living
/// judge was known, unless the process slept meanwhile.
#[test]
fn causes_that_take_turns_never_deny_for_longer_than_one_lease_duration() {
    let mut seed = 7_u64;
    let mut next = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let (mut denied, mut allowed, mut judged) = (0, 0, 0);
    for _ in 0..200 {
        let mut play = Play::new(Some("a"));
        for _ in 0..300 {
            play.is(Wait([100, 200, 700, 1_500][next(4)]), "");
            match next(8) {
                0 => play.is(Pods(["a b", "a b*", "a", "a* b!", "a*+ b"][next(5)]), ""),
                1 => play.is(Read(["x_1", "x", "b_1", "a_0", ""][next(5)]), ""),
                2 => play.is(Gone, ""),
                3 => play.is(Fresh(next(4) > 0), ""),
                4 => play.is(Complete(next(4) > 0), ""),
                _ => {
                    play.judge.begin_round();
                    for _ in 0..4 {
                        play.last = play.judge.next_step(play.now);
                        play.started = play.now;
                        match (&play.last, next(5)) {
                            (None, _) => break,
                            (_, 0) => break,
                            (Some(LeaseStep::Read), 1) => play.is(Gone, ""),
                            (Some(LeaseStep::Read), _)
                                if matches!(play.judge.lease, LeaseSight::Seen(..)) =>
                            {
                                play.is(Same, "");
                            }
                            (Some(LeaseStep::Read), _) => play.is(Read("x_1"), ""),
                            (Some(LeaseStep::Mark(_)), 1) => play.is(Refused, ""),
                            (_, 1) => play.is(Conflict, ""),
                            _ => play.is(Done, ""),
                        }
                    }
                }
            }
            let is_judged = play.is_judged();
            match play.turn() {
                Judges => judged += 1,
                Allows => {
                    allowed += 1;
                    assert!(!is_judged || play.judge.misled_since.is_some());
                }
                Denies => {
                    denied += 1;
                    let since = play.now - play.judged_at;
                    // Looks are 100 ms apart.
                    assert!(
                        since < TIMES.lease_duration + Duration::from_millis(100),
                        "{since:?} {:?}",
                        play.judge
                    );
                }
            }
        }
    }
    assert!(denied > 1_000 && allowed > 1_000 && judged > 1_000, "{denied} {allowed} {judged}");
}
