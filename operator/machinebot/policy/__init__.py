"""Pure decisions: grants, lifetimes, why to issue, when to try again. No I/O, and the time is an argument."""
