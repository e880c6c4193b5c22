//! What a condition may come to for a row: a set of {false, true, NULL}. A condition that is not computed may come to
//! anything, and SQL's logic over such sets says what follows from the rest. A row can be left out exactly when
//! `true` is not in its set.

/// A set of outcomes. Never empty.
pub type Outcomes = u8;

pub const FALSE: Outcomes = 1;
pub const TRUE: Outcomes = 2;
pub const NULL: Outcomes = 4;
pub const ANY: Outcomes = FALSE | TRUE | NULL;
/// Not looked at yet: no set.
pub const UNKNOWN: Outcomes = 0;

const EACH: [Outcomes; 3] = [FALSE, TRUE, NULL];

static AND: [[Outcomes; 8]; 8] = binary(true);
static OR: [[Outcomes; 8]; 8] = binary(false);

pub fn and(a: Outcomes, b: Outcomes) -> Outcomes {
    AND[a as usize][b as usize]
}

pub fn or(a: Outcomes, b: Outcomes) -> Outcomes {
    OR[a as usize][b as usize]
}

pub fn not(a: Outcomes) -> Outcomes {
    (a & NULL) | if a & TRUE > 0 { FALSE } else { 0 } | if a & FALSE > 0 { TRUE } else { 0 }
}

/// `a IS [NOT] TRUE | FALSE | UNKNOWN`: never NULL.
pub fn is(a: Outcomes, what: Outcomes, negated: bool) -> Outcomes {
    let (yes, no) = if negated { (FALSE, TRUE) } else { (TRUE, FALSE) };
    (if a & what > 0 { yes } else { 0 }) | (if a & !what & ANY > 0 { no } else { 0 })
}

pub fn may_be_true(a: Outcomes) -> bool {
    a & TRUE > 0
}

/// Every pair of outcomes, by SQL's three-valued logic: false decides AND, true decides OR, else NULL spreads.
const fn binary(and: bool) -> [[Outcomes; 8]; 8] {
    let decides = if and { FALSE } else { TRUE };
    let mut table = [[0; 8]; 8];
    let mut a = 0;
    while a < 8 {
        let mut b = 0;
        while b < 8 {
            let mut n = 0;
            while n < 9 {
                let (x, y) = (EACH[n / 3], EACH[n % 3]);
                if a as u8 & x > 0 && b as u8 & y > 0 {
                    table[a][b] |= if x == decides || y == decides {
                        decides
                    } else if x == NULL || y == NULL {
                        NULL
                    } else {
                        x
                    };
                }
                n += 1;
            }
            b += 1;
        }
        a += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_follow_sql() {
        let check = |got: Outcomes, expected: Outcomes| assert_eq!(got, expected);
        check(and(TRUE, NULL), NULL);
        check(and(FALSE, NULL), FALSE);
        check(and(FALSE, ANY), FALSE);
        check(and(TRUE, ANY), ANY);
        check(and(NULL, ANY), FALSE | NULL);
        check(or(TRUE, ANY), TRUE);
        check(or(FALSE, NULL), NULL);
        check(or(NULL, ANY), TRUE | NULL);
        check(not(TRUE | NULL), FALSE | NULL);
        check(is(NULL, TRUE, false), FALSE);
        check(is(NULL, TRUE, true), TRUE);
        check(is(ANY, TRUE, true), TRUE | FALSE);
        check(is(NULL, NULL, false), TRUE);
    }
}
