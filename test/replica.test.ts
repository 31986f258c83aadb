/** Replicated rows: what two stores agree on, in whatever order and however often it came. */
import { Database } from 'bun:sqlite'
import { describe, expect, test } from 'bun:test'
import { newNodeId } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import { EMPTY_VECTOR, headInForce, isConflict, type Vector } from '../src/config/merge.ts'
import { StoreDatabase } from '../src/store/db.ts'
import type { OwnWrite } from '../src/store/feed.ts'
import { STATE_MIGRATIONS } from '../src/store/migrations/index.ts'
import { Replica } from '../src/store/replica.ts'
import { ManualClock } from './clock.ts'

const DAY_MS = 86_400_000
let seed = 1

type Place = {
  readonly replica: Replica
  readonly clock: ManualClock
  readonly node: ReturnType<typeof newNodeId>
  readonly sqlite: Database
}

function place(clock = new ManualClock(), image?: Uint8Array): Place {
  seed += 7_919
  const random = new SeededRandom(seed)
  const sqlite = image === undefined ? new Database(':memory:') : Database.deserialize(image)
  if (image === undefined) for (const { sql } of STATE_MIGRATIONS) sqlite.run(sql)
  const store = new StoreDatabase(sqlite, 'state.db', new Observer(clock, () => {}))
  const node = newNodeId(random)
  return { replica: new Replica(store, { clock, random, node }), clock, node, sqlite }
}

/** Everything of `from` that `to` lacks, batch by batch, as a link would carry it. */
function carry(from: Place, to: Place, bytes = 400): { readonly rows: number } {
  const cursor = to.replica.cursor(from.node)
  let at = cursor?.generation === from.replica.generation ? cursor.at : 0
  let rows = 0
  for (;;) {
    const out = from.replica.read(at, to.replica.vector(), bytes)
    to.replica.apply({
      peer: from.node,
      rows: JSON.parse(JSON.stringify(out.rows)),
      as: {
        kind: 'batch',
        cursor: { generation: from.replica.generation, at: out.upto },
        vector: out.final ? from.replica.vector() : null,
      },
    })
    rows += out.rows.length
    at = out.upto
    if (out.final) return { rows }
  }
}

function contents({ replica }: Place): readonly unknown[] {
  return replica.rowsOf(
    Array.from({ length: 256 }, (_, leaf) => replica.leaf(leaf)).flatMap((rows) =>
      rows.map(({ name }) => name),
    ),
  )
}

const inForce = ({ replica }: Place, key: string): string | null | undefined => {
  const cell = replica.cell('setting', key)
  return cell === null ? undefined : headInForce(cell, 'latest').value
}

describe('a replica', () => {
  test('gives a peer what it lacks, once', () => {
    const [a, b] = [place(), place()]
    for (let count = 0; count < 40; count += 1) a.replica.write('setting', `k${count}`, '1', 'ruiz')
    expect(carry(a, b).rows).toBe(41)
    expect(carry(a, b).rows).toBe(0)
    expect(contents(b)).toEqual(contents(a))
    expect(b.replica.vector()).toEqual(a.replica.vector())
    expect(b.replica.digest()).toEqual(a.replica.digest())
    // The other way: what came from there is known there.
    expect(carry(b, a).rows).toBe(0)
  })

  test('keeps both of two writes that did not see each other, and one write that saw both', () => {
    const [a, b] = [place(), place()]
    a.replica.write('setting', 'policy.hold', '7', 'ruiz')
    b.clock.advance(5)
    b.replica.write('setting', 'policy.hold', '8', 'nagy')
    carry(a, b)
    carry(b, a)
    for (const { replica } of [a, b]) {
      const cell = replica.cell('setting', 'policy.hold')
      expect(cell === null ? null : isConflict(cell)).toBe(true)
    }
    expect([inForce(a, 'policy.hold'), inForce(b, 'policy.hold')]).toEqual(['8', '8'])
    b.replica.write('setting', 'policy.hold', '7', 'nagy')
    carry(b, a)
    expect(a.replica.cell('setting', 'policy.hold')?.heads.length).toBe(1)
    expect(inForce(a, 'policy.hold')).toBe('7')
  })

  test('keeps a head that the author had not been shown', () => {
    const a = place()
    const shown: Vector = new Map(a.replica.write('setting', 'x', '1', 'ruiz').context)
    a.replica.write('setting', 'x', '2', 'nagy')
    expect(a.replica.write('setting', 'x', '3', 'ruiz', shown).heads.length).toBe(2)
  })

  test('does not take a vector over before the end of a batch', () => {
    const [a, b] = [place(), place()]
    for (let count = 0; count < 9; count += 1) a.replica.write('setting', `k${count}`, '1', 'ruiz')
    const part = a.replica.read(0, EMPTY_VECTOR, 300)
    expect(part.final).toBe(false)
    b.replica.apply({
      peer: a.node,
      rows: part.rows,
      as: {
        kind: 'batch',
        cursor: { generation: a.replica.generation, at: part.upto },
        vector: null,
      },
    })
    expect(b.replica.vector().size).toBe(0)
    carry(a, b)
    expect(b.replica.vector()).toEqual(a.replica.vector())
  })

  test('counts a push only when nothing is missing before it', () => {
    const [a, b] = [place(), place()]
    const pushed: OwnWrite[] = []
    a.replica.onOwn((write) => pushed.push(write))
    a.replica.write('setting', 'x', '1', 'ruiz')
    a.replica.write('setting', 'y', '2', 'ruiz')
    a.replica.transact(() => {
      a.replica.write('setting', 'x', '3', 'ruiz')
      a.replica.write('setting', 'x', '4', 'ruiz')
    })
    const [first, second, third] = pushed.map((write) => ({
      peer: a.node,
      rows: write.rows,
      as: { kind: 'push', writer: write.writer, after: write.after, upto: write.upto } as const,
    }))
    if (first === undefined || second === undefined || third === undefined) throw new Error('three')
    b.replica.apply(second)
    expect([inForce(b, 'y'), b.replica.vector().size]).toEqual(['2', 0])
    b.replica.apply(first)
    b.replica.apply(third)
    // After the first, the second counts no more by itself: only its rows are here.
    expect(b.replica.vector().get(a.replica.writer)).toBe(first.as.upto)
    b.replica.apply(second)
    b.replica.apply(third)
    expect(b.replica.vector()).toEqual(a.replica.vector())
    expect(inForce(b, 'x')).toBe('4')
  })

  test('lets rows of the future wait, and counts their writer no further meanwhile (K12)', () => {
    const [a, b, c] = [place(new ManualClock(Date.UTC(2026, 10, 22, 13))), place(), place()]
    a.replica.write('setting', 'x', '1', 'ruiz')
    carry(a, b)
    expect([b.replica.parked > 0, inForce(b, 'x')]).toEqual([true, undefined])
    expect(b.replica.vector().size).toBe(0)
    // A third node must not learn from b that it knows what only waits there.
    carry(b, c)
    expect(c.replica.vector().has(a.replica.writer)).toBe(false)
    b.clock.advance(3_600_000)
    expect(b.replica.settle()).toBe(0)
    expect(inForce(b, 'x')).toBe('1')
    expect(b.replica.vector()).toEqual(a.replica.vector())
    c.clock.advance(3_600_000)
    carry(b, c)
    expect(contents(c)).toEqual(contents(a))
  })

  test('is believed again as soon as its clock is right', () => {
    const [a, b] = [place(new ManualClock(Date.UTC(2026, 10, 22, 13))), place()]
    a.replica.write('setting', 'x', '1', 'ruiz')
    a.replica.write('setting', 'y', '1', 'ruiz')
    carry(a, b)
    expect(inForce(b, 'x')).toBeUndefined()
    a.clock.setWall(-3_600_000)
    a.replica.write('setting', 'x', '2', 'ruiz')
    a.replica.write('setting', 'z', '2', 'ruiz')
    carry(a, b)
    expect([inForce(b, 'x'), inForce(b, 'y'), inForce(b, 'z')]).toEqual(['2', undefined, '2'])
    // What waited does not win when its time comes.
    b.clock.advance(3_600_000)
    expect(b.replica.settle()).toBe(0)
    expect([inForce(b, 'x'), inForce(b, 'y')]).toEqual(['2', '1'])
    expect(contents(b)).toEqual(contents(a))
  })

  test('brings nothing deleted back, and collects tombstones only when all have them (K11)', () => {
    const [a, b] = [place(), place()]
    a.replica.write('setting', 'x', '1', 'ruiz')
    carry(a, b)
    a.replica.write('setting', 'x', null, 'ruiz')
    for (const { clock } of [a, b]) clock.advance(2 * DAY_MS)
    expect(a.replica.collect(b.replica.vector(), 100)).toBe(0)
    carry(b, a)
    expect(inForce(a, 'x')).toBeNull()
    carry(a, b)
    expect(a.replica.collect(b.replica.vector(), 100)).toBe(1)
    expect(a.replica.cell('setting', 'x')).toBeNull()
    // A peer that has not collected it yet may still show it.
    const shown = b.replica.rowsOf(['setting/x'])
    expect(shown.length).toBe(1)
    a.replica.apply({ peer: b.node, rows: shown, as: { kind: 'repair' } })
    carry(b, a)
    expect(a.replica.cell('setting', 'x')).toBeNull()
    expect(b.replica.digest().root).toBe(a.replica.digest().root)
  })

  test('has seen a tombstone that it collected: what is made anew conflicts with it nowhere', () => {
    const [a, b] = [place(), place()]
    a.replica.write('setting', 'x', '1', 'ruiz')
    a.replica.write('setting', 'x', null, 'ruiz')
    carry(a, b)
    for (const { clock } of [a, b]) clock.advance(2 * DAY_MS)
    expect(a.replica.collect(b.replica.vector(), 100)).toBe(1)
    a.replica.write('setting', 'x', '2', 'nagy')
    carry(a, b)
    for (const one of [a, b]) {
      expect(one.replica.cell('setting', 'x')?.heads.map(({ value }) => value)).toEqual(['2'])
    }
    expect(b.replica.digest().root).toBe(a.replica.digest().root)
  })

  test('puts the edit of a page of before a deletion beside it, also when that is forgotten', () => {
    const [a, b] = [place(), place()]
    const shown = new Map(a.replica.write('setting', 'x', '1', 'ruiz').context)
    a.replica.write('setting', 'x', null, 'ruiz')
    carry(a, b)
    for (const { clock } of [a, b]) clock.advance(2 * DAY_MS)
    expect(a.replica.collect(b.replica.vector(), 100)).toBe(1)
    a.replica.write('setting', 'x', '2', 'nagy', shown)
    carry(a, b)
    for (const one of [a, b]) {
      const values = one.replica.cell('setting', 'x')?.heads.map(({ value }) => value)
      expect(values).toEqual([null, '2'])
    }
  })

  test('lets no clock hold up who is a member', () => {
    const [a, b] = [place(new ManualClock(Date.UTC(2026, 10, 22, 13))), place()]
    a.replica.write('member', 'n/standing', '"evicted"', 'ruiz')
    carry(a, b)
    expect(b.replica.cell('member', 'n/standing')?.heads[0]?.value).toBe('"evicted"')
  })

  test('gives an owned row to its highest version, and forgets it when its time is over', () => {
    const [a, b] = [place(), place()]
    const untilMs = a.clock.wallMs() + DAY_MS
    a.replica.put('held', 'm1', [1, 1], 'one', 'postern', untilMs)
    carry(a, b)
    b.replica.put('held', 'm1', [2, 0], 'two', 'postern', untilMs)
    a.replica.put('held', 'm1', [1, 9], 'nine', 'postern', untilMs)
    carry(a, b)
    carry(b, a)
    expect([a, b].map(({ replica }) => replica.owned('held', 'm1')?.value)).toEqual(['two', 'two'])
    expect(() => a.replica.put('held', 'm1', [1, 10], 'x', 'postern', untilMs)).toThrow()
    a.clock.advance(3 * DAY_MS)
    expect(a.replica.collect(null, 100)).toBe(1)
    carry(b, a)
    expect(a.replica.owned('held', 'm1')).toBeNull()
  })

  test('tells who kept a version without an end that it is over, and keeps no value for that', () => {
    const [a, b] = [place(), place()]
    a.replica.put('held', 'm1', [1, 1], 'open', 'postern', null)
    carry(a, b)
    a.replica.put('held', 'm1', [1, 2], 'decided', 'postern', a.clock.wallMs() + DAY_MS)
    for (const { clock } of [a, b]) clock.advance(3 * DAY_MS)
    expect(a.replica.collect(null, 100)).toBe(1)
    expect(a.replica.owned('held', 'm1')).toBeNull()
    expect(JSON.stringify(a.replica.rowsOf(['held/m1']))).not.toContain('decided')
    carry(a, b)
    expect(b.replica.owned('held', 'm1')?.value).toBeNull()
    expect(b.replica.collect(null, 100)).toBe(1)
    expect(b.replica.owned('held', 'm1')).toBeNull()
    expect(b.replica.digest().root).toBe(a.replica.digest().root)
    // For as long as a member may be away.
    for (const { clock } of [a, b]) clock.advance(400 * DAY_MS)
    a.replica.collect(null, 100)
    expect(a.replica.rowsOf(['held/m1'])).toEqual([])
  })

  test('whose clock is ahead forgets for itself alone, and until its clock is right', () => {
    const [a, b, c] = [place(), place(), place()]
    const untilMs = a.clock.wallMs() + DAY_MS
    b.replica.put('held', 'm1', [1, 1], 'one', 'postern', untilMs)
    carry(b, a)
    a.clock.setWall(40 * DAY_MS)
    expect(a.replica.collect(null, 100)).toBe(1)
    carry(a, c)
    expect(c.replica.owned('held', 'm1')).toBeNull()
    const rows = b.replica.rowsOf(['held/m1'])
    for (const one of [a, b, c]) one.replica.apply({ peer: b.node, rows, as: { kind: 'repair' } })
    expect(a.replica.owned('held', 'm1')).toBeNull()
    expect(c.replica.owned('held', 'm1')?.value).toBe('one')
    const over = a.replica.rowsOf(['held/m1'])
    for (const one of [b, c])
      one.replica.apply({ peer: a.node, rows: over, as: { kind: 'repair' } })
    expect([b, c].map(({ replica }) => replica.owned('held', 'm1')?.value)).toEqual(['one', 'one'])
    a.clock.setWall(-40 * DAY_MS)
    a.replica.apply({ peer: b.node, rows, as: { kind: 'repair' } })
    expect(a.replica.owned('held', 'm1')?.value).toBe('one')
    expect(a.replica.digest().root).toBe(b.replica.digest().root)
  })

  test('never writes under an id of an earlier start', () => {
    const a = place()
    a.replica.write('setting', 'x', '1', 'ruiz')
    const again = place(a.clock, a.sqlite.serialize())
    again.replica.write('setting', 'x', '2', 'ruiz')
    expect(again.replica.writer).not.toBe(a.replica.writer)
    expect(again.replica.cell('setting', 'x')?.context.length).toBe(2)
  })

  test('goes on as another writer when it may have been copied while it ran', () => {
    const [a, b] = [place(), place()]
    a.replica.write('setting', 'x', '1', 'ruiz')
    carry(a, b)
    const { writer, generation } = a.replica
    a.replica.renew()
    expect([a.replica.writer === writer, a.replica.generation === generation]).toEqual([
      false,
      false,
    ])
    a.replica.write('setting', 'x', '2', 'ruiz')
    expect(a.replica.vector().get(writer)).toBe(2)
    carry(a, b)
    expect(contents(b)).toEqual(contents(a))
    expect(b.replica.owned('writer', a.replica.writer)?.value).toBe(
      JSON.stringify({ node: a.node }),
    )
  })

  test('changes nothing when a transaction fails', () => {
    const a = place()
    a.replica.write('setting', 'x', '1', 'ruiz')
    const before = [contents(a), a.replica.head, a.replica.vector(), a.replica.digest()]
    const told: unknown[] = []
    a.replica.onOwn((write) => told.push(write))
    expect(() =>
      a.replica.transact(() => {
        a.replica.write('setting', 'x', '2', 'ruiz')
        throw new Error('no')
      }),
    ).toThrow('no')
    expect([contents(a), a.replica.head, a.replica.vector(), a.replica.digest()]).toEqual(before)
    expect(told).toEqual([])
  })

  test('keeps a projection in step, also when its tables must be filled anew', () => {
    const a = place()
    a.replica.write('domain', 'a.example', '1', 'ruiz')
    const seen: string[] = []
    a.replica.project('domain', {
      version: 1,
      clear: () => seen.push('clear'),
      apply: (key) => seen.push(key),
      forget: (key) => seen.push(`-${key}`),
    })
    a.replica.start()
    a.replica.write('domain', 'b.example', '1', 'ruiz')
    a.replica.start()
    expect(seen).toEqual(['clear', 'a.example', 'b.example'])
    a.replica.reset([])
    expect(seen.slice(3).sort()).toEqual(['-a.example', '-b.example'])
  })

  test('keeps its own kinds at a reset, as new writes', () => {
    const [a, b] = [place(), place()]
    a.replica.put('held', 'm1', [1, 3], 'mine', 'postern', null)
    a.replica.write('setting', 'x', '1', 'ruiz')
    const generation = a.replica.generation
    a.replica.reset(['held'])
    expect(a.replica.generation).not.toBe(generation)
    expect(a.replica.owned('held', 'm1')?.version).toEqual([1, 3])
    carry(a, b)
    expect(contents(b)).toEqual(contents(a))
    expect(b.replica.owned('held', 'm1')?.value).toBe('mine')
    expect(inForce(b, 'x')).toBeUndefined()
  })

  test('passes fields and kinds of a later version on as they are (K18)', () => {
    const [a, b, c] = [place(), place(), place()]
    a.replica.write('setting', 'x', '1', 'ruiz')
    const [row] = a.replica.rowsOf(['setting/x']) as { kind: string; state: object }[]
    const later = [
      { ...row, kind: 'later', state: { ...row?.state, shade: { deep: [1, null, 'é'] } } },
    ]
    b.replica.apply({ peer: a.node, rows: later, as: { kind: 'repair' } })
    carry(b, c)
    expect(c.replica.rowsOf(['later/x'])).toEqual(later)
    expect(c.replica.digest().root).toBe(b.replica.digest().root)
  })

  test('refuses a row that is none, names the field, and takes nothing of that batch', () => {
    const [a, b] = [place(), place()]
    a.replica.write('setting', 'x', '1', 'ruiz')
    const [row] = a.replica.rowsOf(['setting/x']) as { state: { heads: object[] } }[]
    const bad: readonly [unknown, string][] = [
      [null, 'row'],
      [{ ...row, kind: 'A/B' }, 'kind'],
      [{ ...row, key: 7 }, 'key'],
      [{ ...row, state: { ...row?.state, shape: 'x' } }, 'state.shape'],
      [{ ...row, state: { ...row?.state, context: [['zz', 1]] } }, 'context'],
      [{ ...row, state: { ...row?.state, context: [] } }, 'heads'],
      [{ ...row, state: { ...row?.state, heads: [] } }, 'heads'],
      [
        { ...row, state: { ...row?.state, heads: [{ ...row?.state.heads[0], stamp: 2 ** 60 }] } },
        'stamp',
      ],
    ]
    for (const [one, field] of bad) {
      expect(() =>
        b.replica.apply({ peer: a.node, rows: [row, one], as: { kind: 'repair' } }),
      ).toThrow(expect.objectContaining({ field }))
    }
    expect(contents(b)).toEqual([])
  })
})
