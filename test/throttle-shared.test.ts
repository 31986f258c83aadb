/** Rates that hold for all nodes together, and what becomes of them when nodes lose each other. */
import { expect, test } from 'bun:test'
import { initialSettings } from '../src/config/schema.ts'
import { Throttle } from '../src/mail/accept/throttle.ts'
import { type Teller, type Tellers, tellers } from './tellers.ts'

const IP = '192.0.2.1'
const LIMIT = 60
const settings = { ...initialSettings(), 'limits.connectionRate': LIMIT, 'limits.messageRate': 30 }
const strict = { ...settings, 'limits.shared': 'strict' }

/** One connection on each of `throttles` every second for a minute; how many were let in. */
function spray(world: Tellers, throttles: readonly Throttle[], rules = settings): number {
  let admitted = 0
  for (let second = 0; second < 58; second++) {
    for (const throttle of throttles) {
      for (let at = 0; at < 3; at++) {
        if (!throttle.opened(IP, rules)) continue
        admitted += 1
        throttle.closed(IP)
      }
    }
    world.mesh.run(1_000)
  }
  return admitted
}

function throttlesOf({ sides }: Tellers): readonly Throttle[] {
  return sides.map(({ node, tally }) => new Throttle(node, tally))
}

test('a network that goes to three nodes is let in as often as if they were one, give or take a tenth', () => {
  const world = tellers(3)
  const admitted = spray(world, throttlesOf(world))
  expect(admitted).toBeLessThanOrEqual(LIMIT * 1.1)
  expect(admitted).toBeGreaterThanOrEqual(LIMIT * 0.8)
})

test('who is too fast on one node is refused on the others within two seconds, for that minute', () => {
  const world = tellers(2)
  const [a, b] = throttlesOf(world) as [Throttle, Throttle]
  for (let at = 0; at <= LIMIT; at++) if (a.opened(IP, settings)) a.closed(IP)
  expect(a.opened(IP, settings)).toBe(false)
  world.mesh.run(2_000)
  expect(b.opened(IP, settings)).toBe(false)
  expect(b.opened('192.0.2.2', settings)).toBe(true)
  world.mesh.run(60_000)
  expect(b.opened(IP, settings)).toBe(true)
})

test('messages and recipients are counted together, too', () => {
  const world = tellers(2)
  const [a, b] = throttlesOf(world) as [Throttle, Throttle]
  for (let at = 0; at < 30; at++) expect(a.begun(IP, settings)).toBe(true)
  for (let at = 0; at < 200; at++) expect(a.addressed(IP, settings)).toBe(true)
  world.mesh.run(2_000)
  expect(b.begun(IP, settings)).toBe(false)
  expect(b.addressed(IP, settings)).toBe(false)
  expect(b.opened(IP, settings)).toBe(true)
})

test('apart, lenient nodes allow all of a rate each, strict ones their share: never more than it', () => {
  for (const [rules, least, most] of [
    [settings, 3 * LIMIT - 9, 3 * LIMIT],
    [strict, LIMIT - 9, LIMIT],
  ] as const) {
    const world = tellers(3)
    const [a, b, c] = world.sides as [Teller, Teller, Teller]
    for (const [one, other] of [
      [a, b],
      [a, c],
      [b, c],
    ] as const) {
      world.mesh.unlink(one.node, other.node)
    }
    world.mesh.run(100)
    const admitted = spray(world, throttlesOf(world), rules)
    expect(admitted).toBeLessThanOrEqual(most)
    expect(admitted).toBeGreaterThanOrEqual(least)
  }
})

test('two of three that see each other are given two thirds between them', () => {
  const world = tellers(3)
  const [a, b, c] = world.sides as [Teller, Teller, Teller]
  world.mesh.unlink(a.node, c.node)
  world.mesh.unlink(b.node, c.node)
  world.mesh.run(100)
  const [first, second, third] = throttlesOf(world) as [Throttle, Throttle, Throttle]
  expect(spray(world, [first, second], strict)).toBeLessThanOrEqual((LIMIT * 2) / 3 + LIMIT / 10)
  world.mesh.run(60_000)
  expect(spray(world, [third], strict)).toBeLessThanOrEqual(LIMIT / 3)
  // However little is left, somebody gets in.
  expect(third.begun(IP, { ...strict, 'limits.messageRate': 1 })).toBe(true)
})
