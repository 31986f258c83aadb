/**
 * Faults built in on purpose, one at a time: the oracle must find each of them, by the rule that
 * is there for it. A simulator that does not find these finds nothing.
 */
import { describe, expect, test } from 'bun:test'
import { StoreError } from '../../src/base/errors.ts'
import { isTombstone, joinVectors, type SharedRow, type Vector } from '../../src/config/merge.ts'
import { type Mutant, replaced } from './node.ts'
import { type Knobs, simulate } from './simulate.ts'
import { ViolationError } from './world.ts'

type Case = {
  readonly name: string
  readonly mutant: Mutant
  /** What the violation says. */
  readonly rule: RegExp
  readonly tune: (knobs: Knobs) => Knobs
}

const SEEDS_MAX = 60
const PATIENCE_MS = 240_000

/** Few rows and much to do, without the faults that excuse something. */
function busy(part: {
  readonly faults?: Partial<Knobs['faults']>
  readonly work?: Partial<Knobs['work']>
  readonly knobs?: Partial<Knobs>
}): (knobs: Knobs) => Knobs {
  return (knobs) => ({
    ...knobs,
    nodes: 3,
    seconds: 40,
    ...part.knobs,
    faults: { ...knobs.faults, rollbacks: 0, clones: 0, losses: 0, clocks: false, ...part.faults },
    work: { ...knobs.work, everyMs: 150, rows: 3, roster: 0, ...part.work },
  })
}

const rowsOf = (rows: readonly unknown[]): readonly SharedRow[] => rows as readonly SharedRow[]

const CASES: readonly Case[] = [
  {
    name: 'a vector that comes with every batch, not with the last',
    mutant: {
      rows: (rows, node) =>
        replaced(rows, {
          apply: (incoming) => {
            const { as, peer } = incoming
            if (as.kind !== 'batch' || as.vector !== null) return rows.apply(incoming)
            const vector = node.peer(peer)?.run?.rows.vector() ?? null
            return rows.apply({ ...incoming, as: { ...as, vector } })
          },
        }),
    },
    rule: /covers .* never saw/,
    tune: busy({ knobs: { batchBytes: 300, lostPushes: 1 }, faults: { cuts: 1, crashes: 1 } }),
  },
  {
    name: 'a cursor that outlives the generation of a feed',
    mutant: { rows: (rows) => replaced(rows, { generation: 'aaaaaaaaaaaa' }) },
    rule: /covers .* never saw|repaired/,
    tune: busy({ faults: { rollbacks: 1, everyMs: 2_000 }, knobs: { lostPushes: 1 } }),
  },
  {
    name: 'a writer that is used again after a start',
    mutant: {
      random: (random, node) => {
        let isFirst = true
        return {
          below: (bound) => random.below(bound),
          bytes: (length) => {
            const bytes = isFirst ? Buffer.from(node.id.slice(0, 2 * length), 'hex') : null
            isFirst = false
            return bytes ?? random.bytes(length)
          },
        }
      },
    },
    rule: /two writes|goes on after/,
    tune: busy({ faults: { crashes: 1, everyMs: 2_000 } }),
  },
  {
    name: 'a tombstone that is collected by its age alone',
    mutant: {
      rows: (rows) => replaced(rows, { collect: (_, limit) => rows.collect(rows.vector(), limit) }),
    },
    rule: /collected .* before everybody had it/,
    tune: busy({ faults: { cuts: 1, lapses: 1, everyMs: 2_000 }, knobs: { seconds: 90 } }),
  },
  {
    name: 'an acknowledgement of what is not on the disk',
    mutant: {
      rows: (rows) => {
        let promised: Vector = new Map()
        return replaced(rows, {
          apply: (incoming) => {
            const { as } = incoming
            if (as.kind === 'batch') promised = joinVectors(promised, as.vector ?? new Map())
            return rows.apply(incoming)
          },
          vector: () => joinVectors(rows.vector(), promised),
        })
      },
    },
    rule: /covers .* never saw|collected .* before everybody|lost/,
    tune: busy({ faults: { disks: 1, everyMs: 1_000 }, knobs: { lostPushes: 1 } }),
  },
  {
    name: 'a vector that runs past rows that are parked',
    mutant: {
      rows: (rows, node) =>
        replaced(rows, {
          vector: () => {
            const all = node.disk.peek<{ writer: string; seq: number }>('SELECT * FROM vector')
            return new Map(all.map(({ writer, seq }) => [writer, seq]))
          },
        }),
    },
    rule: /covers .* never saw/,
    tune: busy({ faults: { clocks: true, everyMs: 2_000 } }),
  },
  {
    name: 'a push that counts although something before it is missing',
    mutant: {
      rows: (rows) =>
        replaced(rows, {
          apply: (incoming) =>
            incoming.as.kind === 'push'
              ? rows.apply({ ...incoming, as: { ...incoming.as, after: 0 } })
              : rows.apply(incoming),
        }),
    },
    rule: /covers .* never saw/,
    tune: busy({ faults: { cuts: 1 }, knobs: { lostPushes: 0.3, batchBytes: 300 } }),
  },
  {
    name: 'a cursor that moves although the disk refused the rows',
    mutant: {
      rows: (rows) =>
        replaced(rows, {
          apply: (incoming) => {
            try {
              return rows.apply(incoming)
            } catch (error) {
              if (!(error instanceof StoreError)) throw error
              return rows.apply({ ...incoming, rows: [] })
            }
          },
        }),
    },
    rule: /covers .* never saw|repaired/,
    tune: busy({ faults: { disks: 1, everyMs: 1_000 } }),
  },
  {
    name: 'a feed that leaves out rows, and a digest that mends it in silence',
    mutant: {
      rows: (rows) =>
        replaced(rows, {
          read: (after, seen, bytesMax) => {
            const out = rows.read(after, seen, bytesMax)
            return { ...out, rows: rowsOf(out.rows).filter(({ kind }) => kind !== 'held') }
          },
        }),
    },
    rule: /a digest repaired/,
    tune: busy({ work: { held: 0.6 }, knobs: { lostPushes: 1 } }),
  },
  {
    name: 'the same feed without a digest',
    mutant: {
      rows: (rows) =>
        replaced(rows, {
          digest: () => null,
          read: (after, seen, bytesMax) => {
            const out = rows.read(after, seen, bytesMax)
            return { ...out, rows: rowsOf(out.rows).filter(({ kind }) => kind !== 'held') }
          },
        }),
    },
    rule: /has not the last version/,
    tune: busy({ work: { held: 0.6 }, knobs: { lostPushes: 1 } }),
  },
  {
    name: 'a merge that drops one of two heads',
    mutant: {
      rows: (rows) =>
        replaced(rows, {
          apply: (incoming) =>
            rows.apply({
              ...incoming,
              rows: rowsOf(incoming.rows).map((row) =>
                row.state.shape === 'cell' && row.state.heads.length > 1
                  ? { ...row, state: { ...row.state, heads: row.state.heads.slice(1) } }
                  : row,
              ),
            }),
        }),
    },
    rule: /dropped|lost/,
    tune: busy({ faults: { cuts: 1 }, work: { stale: 0.4 } }),
  },
  {
    name: 'an edit from a stale page that overwrites what it did not show',
    mutant: {
      rows: (rows) =>
        replaced(rows, {
          write: (kind, key, value, author) => rows.write(kind, key, value, author, null),
        }),
    },
    rule: /dropped|lost/,
    tune: busy({ work: { stale: 0.5 } }),
  },
  {
    name: 'a deletion that comes back because tombstones are not sent',
    mutant: {
      rows: (rows) =>
        replaced(rows, {
          read: (after, seen, bytesMax) => {
            const out = rows.read(after, seen, bytesMax)
            return { ...out, rows: rowsOf(out.rows).filter(({ state }) => !isTombstone(state)) }
          },
        }),
    },
    rule: /covers .* never saw|came back/,
    tune: busy({ knobs: { lostPushes: 1 } }),
  },
  {
    name: 'what was forgotten here, kept from whose disk went back',
    mutant: {
      rows: (rows) =>
        replaced(rows, {
          read: (after, seen, bytesMax) => {
            const out = rows.read(after, seen, bytesMax)
            const isShown = ({ kind, key }: SharedRow): boolean =>
              (rows.cell(kind, key) ?? rows.owned(kind, key)) !== null
            return { ...out, rows: rowsOf(out.rows).filter(isShown) }
          },
        }),
    },
    rule: /covers .* never saw|came back|repaired/,
    tune: busy({
      faults: { rollbacks: 0.3, lapses: 0.3, everyMs: 5_000, cuts: 0, crashes: 0, disks: 0 },
      knobs: { seconds: 90 },
    }),
  },
  {
    name: 'a clock of the future that is believed',
    mutant: {
      rows: (rows) => {
        rows.stamps.isAhead = () => false
        return rows
      },
    },
    rule: /believes a stamp of the future/,
    tune: busy({ faults: { clocks: true, everyMs: 2_000 } }),
  },
  {
    name: 'a node that was removed and is still heard',
    mutant: {
      rows: (rows) =>
        replaced(rows, {
          list: (kind, prefix) =>
            rows
              .list(kind, prefix)
              .filter(({ key }) => kind !== 'member' || !key.endsWith('/standing')),
        }),
    },
    rule: /takes rows of a removed node/,
    tune: busy({ work: { roster: 0.1 } }),
  },
  {
    name: 'a token that lets in more than it says',
    mutant: {
      rows: (rows) =>
        replaced(rows, {
          write: (kind, key, value, author, seen) => {
            const kept = value?.replace(/"usedBy":\[[^\]]*\]/, '"usedBy":[]') ?? null
            return rows.write(kind, key, kind === 'invitation' ? kept : value, author, seen)
          },
        }),
      issued: (issued) =>
        replaced(issued, {
          use: () => true,
          get: (id) => {
            const token = issued.get(id)
            return token === null ? null : { ...token, usesLeft: 1 }
          },
        }),
    },
    rule: /token for one let two in/,
    tune: busy({ work: { roster: 0.2 }, faults: { cuts: 0, crashes: 0 } }),
  },
  {
    // Written down until it is in the queue, as an outbox has it, and forgotten then.
    name: 'a release that is not written down',
    mutant: {
      rows: (rows) =>
        replaced(rows, {
          put: (kind, key, version, value, author, untilMs) => {
            const kept = value?.replaceAll(/,"claim":\{[^}]*\},"enqueuedMs":\d+/g, '') ?? null
            return rows.put(kind, key, version, kind === 'held' ? kept : value, author, untilMs)
          },
        }),
    },
    rule: /is released twice/,
    tune: busy({ work: { held: 0.8 } }),
  },
  {
    name: 'a release that counts as done when it is decided',
    mutant: {
      rows: (rows) =>
        replaced(rows, {
          put: (kind, key, version, value, author, untilMs) => {
            const said =
              value?.replaceAll(/"claim":\{[^}]*\}(?!,"enqueuedMs)/g, '$&,"enqueuedMs":1') ?? null
            return rows.put(kind, key, version, kind === 'held' ? said : value, author, untilMs)
          },
        }),
    },
    rule: /released, and never leaves/,
    tune: busy({ work: { held: 0.8 } }),
  },
  {
    name: 'a node that cuts off what it does not know',
    mutant: {
      rows: (rows) =>
        replaced(rows, {
          apply: (incoming) =>
            rows.apply({
              ...incoming,
              rows: rowsOf(incoming.rows).map((row) => {
                if (row.state.shape !== 'cell') return row
                const heads = row.state.heads.map(({ writer, seq, stamp, author, value }) => ({
                  writer,
                  seq,
                  stamp,
                  author,
                  value,
                }))
                return { ...row, state: { ...row.state, heads } }
              }),
            }),
        }),
    },
    rule: /as it was written|differs between nodes|not equal/,
    tune: busy({ work: { future: 0.2 } }),
  },
  {
    name: 'a node that never dials again',
    mutant: {
      network: (network, node) => ({
        ...network,
        dial: (address, open, timeoutMs) =>
          (node.run?.clock.monoMs() ?? 0) > 5_000
            ? Promise.reject(new Error('no'))
            : network.dial(address, open, timeoutMs),
      }),
    },
    rule: /not equal/,
    tune: busy({ faults: { crashes: 1, everyMs: 2_000 } }),
  },
  {
    name: 'a word in plaintext',
    mutant: {
      network: (network) => ({
        ...network,
        datagrams: async (address, received) => {
          const socket = await network.datagrams(address, received)
          return {
            ...socket,
            send: (bytes, to) => {
              socket.send(bytes, to)
              socket.send(new Uint8Array(Buffer.from('by "ruiz"')), to)
            },
          }
        },
      }),
    },
    rule: /plaintext/,
    tune: busy({}),
  },
  {
    name: 'a datagram that a network may cut',
    mutant: {
      network: (network) => ({
        ...network,
        datagrams: async (address, received) => {
          const socket = await network.datagrams(address, received)
          return { ...socket, send: (_, to) => socket.send(new Uint8Array(1_201), to) }
        },
      }),
    },
    rule: /a datagram of 1201 bytes/,
    tune: busy({}),
  },
]

describe('the oracle finds', () => {
  for (const { name, mutant, rule, tune } of CASES) {
    test(
      name,
      () => {
        const found = firstViolation(mutant, tune)
        expect(found?.message ?? `nothing in ${SEEDS_MAX} seeds`).toMatch(rule)
        // The same seed without the fault is clean: it is the fault that was found.
        expect(() => simulate(found?.seed ?? 0, { tune })).not.toThrow()
        process.stdout.write(`  ${found?.seed} seeds: ${name}\n`)
      },
      PATIENCE_MS,
    )
  }

  test('chance that no seed has drawn', () => {
    const mutant: Mutant = {
      random: (random) => ({
        below: (bound) => Math.floor(Math.random() * bound),
        bytes: (length) => random.bytes(length),
      }),
    }
    const run = (): string => simulate(1, { mutant, tune: busy({}) }).hash
    expect(new Set([run(), run()]).size).toBe(2)
  }, 60_000)
})

function firstViolation(
  mutant: Mutant,
  tune: (knobs: Knobs) => Knobs,
): { readonly seed: number; readonly message: string } | null {
  for (let seed = 1; seed <= SEEDS_MAX; seed += 1) {
    try {
      simulate(seed, { mutant, tune })
    } catch (error) {
      if (!(error instanceof ViolationError)) throw error
      return { seed, message: error.message }
    }
  }
  return null
}
