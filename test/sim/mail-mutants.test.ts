/**
 * Faults built into the handling of mail on purpose, one at a time: the rule that is there for it
 * must find each of them. A simulator that does not find these finds nothing.
 */
import { describe, expect, setDefaultTimeout, test } from 'bun:test'
import { type Absence, Absences } from '../../src/cluster/absence.ts'
import { Barrier } from '../../src/cluster/barrier.ts'
import { Isolation } from '../../src/cluster/isolation.ts'
import { LinkMirror } from '../../src/cluster/mirror.ts'
import { Yields } from '../../src/cluster/yield.ts'
import { Queue } from '../../src/store/queue.ts'
import { Message } from '../../src/store/queued.ts'
import { Spool } from '../../src/store/spool.ts'
import { NO_FAULTS } from './mail-faults.ts'
import { type MailKnobs, MailSimulation } from './mail-simulate.ts'
import { CALM } from './network.ts'
import { ViolationError } from './world.ts'

setDefaultTimeout(240_000)

const SEEDS_MAX = 30

type Case = {
  readonly name: string
  /** Puts the fault in; gives how to take it out. */
  readonly plant: () => () => void
  readonly isLying?: boolean
  /** What the violation says. */
  readonly rule: RegExp
  readonly faults: Partial<MailKnobs['faults']>
  /** Every disk takes its time. */
  readonly isSlow?: boolean
  /** The part of the recipients that a next hop puts off. */
  readonly busy?: number
}

/** `by` in the place of a method of all objects of a kind. */
function replace<Kind extends object, Name extends keyof Kind>(
  kind: { readonly prototype: Kind },
  name: Name,
  by: (before: Kind[Name]) => Kind[Name],
): () => void {
  const { prototype } = kind
  const before = prototype[name]
  prototype[name] = by(before)
  return () => {
    prototype[name] = before
  }
}

const CASES: readonly Case[] = [
  {
    name: 'a disk that says that it has synced, and has not',
    plant: () => () => {},
    isLying: true,
    rule: /lost:|on no disk|before its TRY|without its COMMIT|told too|forgotten too|acknowledged too/,
    faults: { powerCuts: 1 },
  },
  {
    name: 'a node that comes back and asks nobody',
    plant: () => replace(Barrier, 'blocks', () => () => false),
    rule: /no barrier|delivered again/,
    faults: { kills: 1, cuts: 1, hops: 1 },
  },
  {
    name: 'an owner that lost its holders and goes on for ever',
    plant: () => replace(Isolation, 'blocks', () => () => false),
    rule: /no isolation/,
    faults: { cuts: 1, hops: 1 },
  },
  {
    name: 'an adoption at the first refusal',
    plant: () =>
      replace(
        Absences,
        'of',
        (before) =>
          function (this: Absences, node): Absence {
            const absence = before.call(this, node)
            if (absence.kind !== 'refused') return absence
            const refusedMs = Number.POSITIVE_INFINITY
            return { ...absence, kind: 'confirmed', why: 'refused', refusedMs }
          },
      ),
    rule: /adopted too soon/,
    faults: { kills: 1, hops: 1 },
  },
  {
    name: 'a DISCARD that goes out before DONE is durable',
    plant: () =>
      replace(
        LinkMirror,
        'marked',
        (before) =>
          function (this: LinkMirror, message): void {
            before.call(this, message)
            if (message.tried.size > 0) this.settled(message)
          },
      ),
    rule: /forgotten too soon/,
    faults: { hops: 1 },
  },
  {
    name: 'a copy that is acknowledged before it is durable',
    plant: () =>
      replace(
        Queue,
        'keep',
        (before) =>
          function (this: Queue, draft, commit): Promise<Message> {
            before.call(this, draft, commit).catch(() => {})
            return Promise.resolve(new Message(commit.envelope.id, commit))
          },
      ),
    rule: /acknowledged too soon/,
    faults: { kills: 1 },
  },
  {
    name: 'an adoption that is told before it is durable',
    plant: () => {
      let isAdopting = false
      const heal = replace(
        Spool,
        'synced',
        (before) =>
          function (this: Spool): Promise<void> {
            return isAdopting ? Promise.resolve() : before.call(this)
          },
      )
      const healToo = replace(
        Queue,
        'adopt',
        (before) =>
          function (this: Queue, taken): Promise<readonly Message[]> {
            isAdopting = true
            const adopted = before.call(this, taken)
            isAdopting = false
            return adopted
          },
      )
      return () => {
        heal()
        healToo()
      }
    },
    rule: /told too soon/,
    faults: { kills: 1, hops: 1 },
    isSlow: true,
  },
  {
    name: 'marks of others that are not merged',
    plant: () => replace(Yields, 'merge', () => () => {}),
    rule: /delivered again|were counted/,
    // A cut that is long enough for an adoption, and an heir that has not delivered when it ends.
    faults: { everyMs: 8_000, cuts: 1 },
    busy: 0.9,
  },
]

function tuned({ faults, busy }: Case): (knobs: MailKnobs) => MailKnobs {
  return (knobs) => ({
    ...knobs,
    nodes: 3,
    timeScale: 12,
    weather: CALM,
    hop: { ...knobs.hop, busy: busy ?? knobs.hop.busy },
    senders: { ...knobs.senders, everyMs: 400, lostReplies: 0 },
    faults: { ...NO_FAULTS, everyMs: 5_000, ...faults },
    settings: { ...knobs.settings, 'cluster.isolation': 'hold', 'cluster.copies': 'prefer' },
  })
}

/** What is wrong with a seed; null: nothing. */
function violationOf(seed: number, mutant: Case, isLying: boolean): string | null {
  const sim = new MailSimulation(seed, { tune: tuned(mutant) })
  try {
    for (const { spool } of sim.nodes) {
      if (isLying) spool.isLying = true
      if (mutant.isSlow === true) spool.pace = { writeMs: 0.2, syncMs: 60, stalls: 0 }
    }
    sim.live()
    sim.rest()
    return null
  } catch (error) {
    if (error instanceof ViolationError) return error.message
    throw error
  } finally {
    sim.close()
  }
}

function firstViolation(mutant: Case): { readonly seed: number; readonly message: string } | null {
  const heal = mutant.plant()
  try {
    for (let seed = 1; seed <= SEEDS_MAX; seed += 1) {
      const message = violationOf(seed, mutant, mutant.isLying === true)
      if (message !== null) return { seed, message }
    }
    return null
  } finally {
    heal()
  }
}

describe('is found', () => {
  for (const mutant of CASES) {
    test(mutant.name, () => {
      const found = firstViolation(mutant)
      expect(found?.message ?? `nothing in ${SEEDS_MAX} seeds`).toMatch(mutant.rule)
      // The same seed without the fault is clean: it is the fault that was found.
      expect(violationOf(found?.seed ?? 0, mutant, false)).toBeNull()
      process.stdout.write(`  ${found?.seed} seeds: ${mutant.name}\n`)
    })
  }
})
