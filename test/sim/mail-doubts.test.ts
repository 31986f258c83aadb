/**
 * What an adoption leaves open, when a disk goes back in time: nobody who has forgotten what went
 * out ends a doubt. A failure says the seed.
 */
import { afterEach, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { Barrier } from '../../src/cluster/barrier.ts'
import type { Mail } from './ledger.ts'
import {
  around,
  calm,
  closeAll,
  deliveriesOf,
  holdersOf,
  isDelivered,
  node,
  ownersOf,
  queued,
} from './mail-calm.ts'
import type { MailSimulation } from './mail-simulate.ts'
import type { SimNode, Snapshot } from './node.ts'

const MINUTE_MS = 60_000
setDefaultTimeout(120_000)
afterEach(closeAll)

type Cast = {
  readonly sim: MailSimulation
  readonly mail: Mail
  readonly owner: SimNode
  /** Who has the copy, and takes the mail over when its owner is dead. */
  readonly heir: SimNode
  /** Who gets a copy of the heir. */
  readonly third: SimNode
}

/** A mail waits with its owner, and no next hop takes it. */
function cast(): Cast {
  // Nobody tries it a second time by himself before it can be told how it stood.
  const sim = calm(3, { settings: { 'queue.first': 600, 'queue.longest': 600 } })
  const owner = node(sim, 0)
  const [mail] = queued(sim, owner, 1) as [Mail]
  const [heir] = holdersOf(sim, mail) as [SimNode]
  const third = sim.nodes.find((one) => one !== owner && one !== heir) as SimNode
  sim.world.runFor(5_000)
  return { sim, mail, owner, heir, third }
}

/** An operator has `at` deliver it, and it is killed; `isApart`: before others hear of that. */
function delivers({ sim, mail }: Cast, at: SimNode, isApart: boolean): void {
  const times = (): number => deliveriesOf(sim, mail).length
  const wanted = times() + mail.recipients.length
  if (isApart) sim.cluster.fabric.cut('apart', around(at))
  sim.hops.isDown = false
  sim.world.act(() => at.run?.mail?.pipeline.retry(null))
  expect(sim.world.runTill(() => times() === wanted, MINUTE_MS)).toBe(true)
  sim.hops.isDown = true
  sim.world.runFor(1_000)
  sim.world.act(() => at.crash(false))
  sim.cluster.fabric.heal('apart')
}

/** Its owner is dead, and it is the heir's. */
function inherited({ sim, mail, heir }: Cast): void {
  expect(sim.world.runTill(() => ownersOf(sim, mail).includes(heir), 200_000, 10)).toBe(true)
}

/** So that its peers know of later starts than its image does. */
function startTwice({ sim: { world } }: Cast, at: SimNode): void {
  for (const _ of [1, 2]) {
    world.act(() => at.crash(false))
    world.runFor(1_000)
    world.act(() => at.start())
    world.runFor(10_000)
  }
}

/** It starts with the disk of `image`, and is told so. */
function goesBack({ sim }: Cast, at: SimNode, image: Snapshot): void {
  at.restore(image)
  sim.lost(at, image.atMs)
  sim.world.act(() => at.start())
}

/** By recipient: how often it arrived, how many of that were counted as doubtful, and what was said. */
function ended({ sim, mail }: Cast) {
  sim.hops.isDown = false
  expect(sim.world.runTill(() => isDelivered(sim, [mail]), 20 * MINUTE_MS)).toBe(true)
  sim.rest()
  const count = (what: string): number => sim.world.seen.get(what) ?? 0
  expect(count('rolled back, and it was told so')).toBe(1)
  const said = ['once', 'twice', 'open'].map((how) => count(`possible duplicate resolved: ${how}`))
  const { length } = mail.recipients
  return {
    arrived: deliveriesOf(sim, mail).length / length,
    counted: count('in doubt delivered') / length,
    said: said.reduce((sum, many) => sum + many, 0),
  }
}

/**
 * An heir delivers what it took over, and has forgotten that when its former owner comes back.
 * `isApart`: the third knows of a later start of it, and nothing of the mail; else of that only.
 */
function forgetfulHeir(hadDelivered: boolean, isApart: boolean) {
  const all = cast()
  const { sim, mail, owner, heir, third } = all
  const { world } = sim
  if (hadDelivered) delivers(all, owner, true)
  else world.act(() => owner.crash(false))
  inherited(all)
  const image = heir.snapshot()
  if (isApart) startTwice(all, heir)
  const isHealed = (): boolean => holdersOf(sim, mail).includes(third)
  expect(world.runTill(isHealed, 2 * MINUTE_MS)).toBe(true)
  delivers(all, heir, isApart)
  goesBack(all, heir, image)
  // What it says of a delivery is a mark for whoever still asks.
  if (hadDelivered) world.runFor(2 * MINUTE_MS)
  world.act(() => owner.start())
  world.runFor(2 * MINUTE_MS)
  return ended(all)
}

/** A former owner comes back, and has forgotten that it delivered what was taken over. */
function forgetfulOwner() {
  const all = cast()
  const { sim, owner } = all
  const image = owner.snapshot()
  startTwice(all, owner)
  delivers(all, owner, true)
  inherited(all)
  goesBack(all, owner, image)
  sim.world.runFor(2 * MINUTE_MS)
  return ended(all)
}

const HISTORIES: readonly (readonly [
  name: string,
  run: () => ReturnType<typeof ended>,
  counted: number,
])[] = [
  [
    'an heir that has forgotten that it delivered, whose former owner had not',
    () => forgetfulHeir(false, true),
    2,
  ],
  [
    'an heir that has forgotten that it delivered, whose former owner had too',
    () => forgetfulHeir(true, true),
    1,
  ],
  ['a former owner that has forgotten that it delivered', forgetfulOwner, 1],
]

describe('nobody says how often it arrived, and each double is counted:', () => {
  for (const [name, run, counted] of HISTORIES) {
    test(name, () => {
      expect(run()).toEqual({ arrived: 2, counted, said: 0 })
    })

    test(`${name}: who takes its disk for whole is found`, () => {
      const { prototype } = Barrier
      const before = Object.getOwnPropertyDescriptor(
        prototype,
        'isRolledBack',
      ) as PropertyDescriptor
      Object.defineProperty(prototype, 'isRolledBack', { ...before, get: () => false })
      try {
        expect(run).toThrow(/is said to be (once|open), and arrived \d times/)
      } finally {
        Object.defineProperty(prototype, 'isRolledBack', before)
      }
    })
  }

  test('an heir that has forgotten that it delivered, and its latest copy knows it', () => {
    expect(forgetfulHeir(false, false)).toEqual({ arrived: 1, counted: 1, said: 0 })
    expect(forgetfulHeir(true, false)).toEqual({ arrived: 2, counted: 1, said: 0 })
  })
})
