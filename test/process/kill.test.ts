/** `kill -9` at random moments under load: what was acked arrives, what was refused never does. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { SeededRandom } from '../../src/base/random.ts'
import { COUNTS, PATIENCE_MS, SEED } from './counts.ts'
import { accountLine, Load, settleAccount } from './ledger.ts'
import { Postern } from './postern.ts'
import { type Arrival, Sink } from './sink.ts'

const clock = new SystemClock()
/**
 * What a next hop confirmed this long before a kill may be unknown after it: marks wait for a group,
 * a sync of a busy disk, and both processes for two cores.
 */
const MARK_MS = 500

type Kill = { readonly atMs: number }

describe(`${COUNTS.kills} kills under load, seed ${SEED}`, () => {
  const random = new SeededRandom(SEED)
  const sink = new Sink({ dot: () => ({ reply: '250 2.0.0 Kept', waitMs: slowness(random) }) })
  const kills: Kill[] = []
  const startsMs: number[] = []
  let node: Postern
  let load: Load
  let doubted = 0

  beforeAll(async () => {
    node = await Postern.start()
    await node.addDomain('example.com', sink.nextHop)
    await node.set('queue.inDoubt', '1')
    load = new Load({
      port: node.smtpPort,
      domain: 'example.com',
      connections: 12,
      seed: SEED,
      sizes: [600, 4_000, 4_000, 50_000, 300_000, 1_000_000],
      replyMs: 30_000,
    })
    for (let n = 0; n < COUNTS.kills; n += 1) {
      // Some mails further, then some ms further: kills fall at every stage of a message.
      const goal = load.ledger.acked + 1 + random.below(60)
      expect(await load.ledger.untilAcked(goal, 30_000)).toBeTrue()
      await pause(clock, random.below(40))
      kills.push({ atMs: clock.monoMs() })
      await node.kill()
      await node.begin()
      startsMs.push(node.readyMs)
    }
    expect(await load.ledger.untilAcked(load.ledger.acked + 20, 30_000)).toBeTrue()
    await load.stop()
    sink.manners = {}
    expect(await node.queueEmpty(60_000)).toBeTrue()
    doubted = count(node.log(), '"event":"queue.doubted"')
    startsMs.sort((one, other) => one - other)
    console.info(
      `kills ${kills.length}, seed ${SEED}: ${accountLine(account())}; node counted ${doubted} possible duplicates; ` +
        `start to ready median ${Math.round(startsMs[startsMs.length >> 1] ?? 0)} ms, longest ${Math.round(startsMs.at(-1) ?? 0)} ms`,
    )
  }, PATIENCE_MS)
  afterAll(async () => {
    await load?.stop()
    await node?.dispose()
    sink.stop()
  })
  const account = () => settleAccount(load.ledger, sink.arrivals)

  test('every mail that got 250 arrives', () => {
    expect(account().acked).toBeGreaterThan(COUNTS.kills)
    expect(account().lost).toEqual([])
  })

  test('no mail that was refused arrives', () => {
    expect(account().phantom).toEqual([])
  })

  test('every mail arrives with the bytes that were sent, for whom it was sent', () => {
    expect(account().corrupt).toEqual([])
  })

  test('each duplicate was in flight at a kill, and the node counted it', () => {
    const { duplicates } = account()
    const unexplained = duplicates.filter(
      ({ first, next }) => !kills.some((kill) => between(kill, first, next)),
    )
    expect(
      unexplained.map(({ token, first, next }) => `${token}: ${times(kills, first, next)}`),
    ).toEqual([])
    expect(duplicates.length).toBeLessThanOrEqual(doubted)
    const most = kills.reduce((sum, kill) => sum + inFlight(kill, sink.arrivals), 0)
    const before = duplicates
      .map(({ first, next }) => confirmedBefore(kills, first, next))
      .filter((ms) => ms > 0)
    console.info(
      `duplicates ${duplicates.length}, in flight at the kills ${most}; ${before.length} had their reply before the kill, at most ${Math.round(Math.max(0, ...before))} ms`,
    )
    expect(duplicates.length).toBeLessThanOrEqual(most)
  })

  test('mail was in flight at the kills, so that the proof is one', () => {
    const striking = kills.filter((kill) => inFlight(kill, sink.arrivals) > 0)
    expect(striking.length).toBeGreaterThan(kills.length / 4)
    expect(load.ledger.indeterminate).toBeGreaterThan(0)
  })
})

/** One reply in four waits up to 80 ms, so that kills hit between dot and reply. */
function slowness(random: SeededRandom): number {
  return random.below(4) === 0 ? random.below(80) : 0
}

/** Deliveries that were under way, or hardly confirmed, when the node died. */
function inFlight(kill: Kill, arrivals: readonly Arrival[]): number {
  return arrivals.filter(
    ({ askedMs, dotMs, repliedMs }) =>
      askedMs <= kill.atMs && kill.atMs <= (repliedMs ?? dotMs) + MARK_MS,
  ).length
}

/** The first copy was under way, or hardly confirmed, when the node died; the next came after it. */
function between(kill: Kill, first: Arrival, next: Arrival): boolean {
  const confirmedMs = first.repliedMs ?? Number.POSITIVE_INFINITY
  return first.askedMs <= kill.atMs && kill.atMs <= confirmedMs + MARK_MS && kill.atMs <= next.dotMs
}

/** Ms from the reply to the first copy to the kill; not above 0 when the reply came later or never. */
function confirmedBefore(kills: readonly Kill[], first: Arrival, next: Arrival): number {
  const kill = kills.find((one) => between(one, first, next))
  return kill === undefined || first.repliedMs === null ? 0 : kill.atMs - first.repliedMs
}

/** When the two copies came, in ms after the last kill before the second. */
function times(kills: readonly Kill[], first: Arrival, next: Arrival): string {
  const kill = kills.findLast(({ atMs }) => atMs <= next.dotMs)?.atMs ?? 0
  const after = (ms: number | null) => (ms === null ? 'never' : Math.round(ms - kill))
  return `first dot ${after(first.dotMs)}, reply ${after(first.repliedMs)}, next dot ${after(next.dotMs)}`
}

function count(text: string, word: string): number {
  return text.split(word).length - 1
}
