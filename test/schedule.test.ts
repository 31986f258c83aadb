/** When to try again: a table of waits, and laws over a whole schedule in virtual time. */
import { expect, test } from 'bun:test'
import { type Random, SeededRandom } from '../src/base/random.ts'
import { nextDelayMs, type Waits } from '../src/mail/queue/schedule.ts'

const MINUTE_MS = 60_000
const DAY_MS = 86_400_000
const WAITS: Waits = { firstMs: 300_000, longestMs: 4_200_000, expireMs: 5 * DAY_MS }
const none: Random = { below: () => 0, bytes: (length) => new Uint8Array(length) }
const most: Random = { below: (bound) => bound - 1, bytes: (length) => new Uint8Array(length) }

const TABLE = [
  { name: 'the first wait comes after the first attempt', attempts: 1, ageMs: 0, delayMs: 300_000 },
  { name: 'the second wait is twice as long', attempts: 2, ageMs: 1, delayMs: 600_000 },
  { name: 'the fourth is eight times as long', attempts: 4, ageMs: 1, delayMs: 2_400_000 },
  { name: 'no wait is longer than the longest', attempts: 5, ageMs: 1, delayMs: 4_200_000 },
  { name: 'a million attempts do not overflow', attempts: 1e6, ageMs: 1, delayMs: 4_200_000 },
  { name: 'the last attempt falls on the expiry', attempts: 9, ageMs: 5 * DAY_MS - 7, delayMs: 7 },
  { name: 'at the expiry it gives up', attempts: 9, ageMs: 5 * DAY_MS, delayMs: null },
  { name: 'a clock set back does not end it', attempts: 1, ageMs: -DAY_MS, delayMs: 300_000 },
]

for (const row of TABLE) {
  test(row.name, () => expect(nextDelayMs(row, WAITS, none)).toBe(row.delayMs))
}

test('at most one eighth is added at random', () => {
  expect(nextDelayMs({ attempts: 1, ageMs: 0 }, WAITS, most)).toBe(300_000 + 37_499)
})

/** Ages at which attempts happen when every one of them fails. */
function attemptAges(waits: Waits, random: Random): number[] {
  const ages = [0]
  for (;;) {
    const ageMs = ages.at(-1) ?? 0
    const delayMs = nextDelayMs({ attempts: ages.length, ageMs }, waits, random)
    if (delayMs === null) return ages
    ages.push(ageMs + delayMs)
  }
}

test('for every seed a five-day schedule tries often at first, at least hourly later, then ends', () => {
  for (let seed = 1; seed <= 200; seed++) {
    const ages = attemptAges(WAITS, new SeededRandom(seed))
    expect(ages.at(-1)).toBe(5 * DAY_MS)
    // RFC 5321 section 4.5.4.1: two attempts in the first hour.
    expect(
      ages.filter((ageMs) => ageMs > 0 && ageMs <= 60 * MINUTE_MS).length,
    ).toBeGreaterThanOrEqual(2)
    const gaps = ages.slice(1).map((ageMs, index) => ageMs - (ages[index] ?? 0))
    expect(Math.min(...gaps)).toBeGreaterThan(0)
    expect(Math.max(...gaps)).toBeLessThanOrEqual(WAITS.longestMs * 1.125)
    expect(ages.length).toBeGreaterThan(90)
    expect(ages.length).toBeLessThan(110)
  }
})

test('two messages that failed together do not stay together', () => {
  const random = new SeededRandom(7)
  const [one, other] = [attemptAges(WAITS, random), attemptAges(WAITS, random)]
  const shared = one.slice(1, -1).filter((ageMs) => other.includes(ageMs))
  expect(shared.length).toBeLessThan(3)
})

test('a schedule of milliseconds, as a test sets it, ends as well', () => {
  const ages = attemptAges({ firstMs: 50, longestMs: 50, expireMs: 360 }, new SeededRandom(3))
  expect(ages.at(-1)).toBe(360)
  expect(ages.length).toBeLessThan(10)
})
