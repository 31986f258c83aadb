/**
 * Faults of a cluster that need a story of their own; the others are proved beside the part that
 * stands them, under the same names (K01 to K20).
 */
import { Database } from 'bun:sqlite'
import { afterAll, describe, expect, test } from 'bun:test'
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { RefusalError } from '../src/base/errors.ts'
import { SeededRandom } from '../src/base/random.ts'
import { MESSAGE } from '../src/cluster/contract.ts'
import { encodeBody } from '../src/cluster/wire.ts'
import { isTombstone, type SharedRow } from '../src/config/merge.ts'
import { DamagedError } from '../src/store/db.ts'
import type { SharedRows } from '../src/store/shared.ts'
import { meet } from './exchange.ts'
import { Mesh, type MeshNode, replaced } from './mesh.ts'
import { Room } from './rooms.ts'

const SECOND = 1_000
const MINUTE = 60 * SECOND
const DAY = 86_400_000
const YEAR = 365 * DAY

function cluster(count: number): [Mesh, ...MeshNode[]] {
  const mesh = new Mesh()
  const nodes = mesh.add(count)
  mesh.join()
  mesh.run(500)
  return [mesh, ...nodes]
}

function roots(...nodes: readonly MeshNode[]): number {
  return new Set(nodes.map(({ root }) => root)).size
}

describe('a member in the hands of somebody else (K06)', () => {
  test('that stamps ten years ahead puts nothing in force, fills a bounded place, moves no clock', () => {
    const [mesh, a, b, evil] = cluster(3) as [Mesh, MeshNode, MeshNode, MeshNode]
    a.set('known', '1')
    mesh.run(SECOND)
    evil.skewMs = 10 * YEAR
    evil.replica.transact(() => {
      evil.set('known', '"poisoned"')
      evil.set('deleted', null)
    })
    for (let row = 0; row < 12_000; row += 1) {
      evil.set(`k${row}`, '1')
      if (row % 1_000 !== 999) continue
      mesh.run(500)
      if (!evil.links.open.has(a.id)) mesh.join()
    }
    for (let minute = 0; minute < 5; minute += 1) {
      mesh.join()
      mesh.run(MINUTE)
    }
    for (const node of [a, b]) {
      expect(node.value('known')).toBe('1')
      expect(node.value('k1')).toBeUndefined()
      expect(node.replica.parked).toBeGreaterThan(1_000)
      expect(node.replica.parked).toBeLessThanOrEqual(10_000)
      expect(node.count('sync.refused')).toBeGreaterThan(0)
      expect(node.count('clock.skewed')).toBeGreaterThan(0)
    }
    // The others go on, at the time that it is.
    a.set('honest', '2')
    mesh.run(100)
    expect(b.value('honest')).toBe('2')
    const head = b.replica.cell('setting', 'honest')?.heads[0]
    expect(b.replica.stamps.isAhead(head?.stamp ?? Number.MAX_SAFE_INTEGER)).toBe(false)
    expect(evil.sync.clockTrouble()).toContain('ahead of the clocks of its 2 peers')
  }, 60_000)

  test('that sends a million rows is read at our own pace, and the others are heard meanwhile', () => {
    const [mesh, a, b, evil] = cluster(3) as [Mesh, MeshNode, MeshNode, MeshNode]
    const head = evil.replica
    const bodyOf = (round: number): Uint8Array => {
      const rows = Array.from({ length: 1_000 }, (_, at) => {
        const seq = (round % 20) * 1_000 + at + 1
        const stamp = head.stamps.next()
        const dot = { writer: 'eeeeeeeeeeee', seq }
        const state = {
          shape: 'owned',
          ...dot,
          version: [1, 0],
          stamp,
          author: 'eve',
          value: '{}',
          untilMs: null,
        }
        return { kind: 'held', key: `m${seq}`, state }
      })
      const after = (round % 20) * 1_000
      return encodeBody({
        f: 'state',
        o: evil.id,
        w: 'eeeeeeeeeeee',
        a: after,
        u: after + 1_000,
        r: rows,
      })
    }
    const bodies = Array.from({ length: 20 }, (_, round) => bodyOf(round))
    const startMs = mesh.clock.nowMs
    let sent = 0
    let late = 0
    for (let round = 0; sent < 1_000_000; round += 1) {
      if (evil.links.open.get(a.id)?.send(MESSAGE.push, bodies[round % 20] as Uint8Array))
        sent += 1_000
      mesh.run(20)
      if (round % 50 !== 0) continue
      b.set('beside', String(round))
      mesh.run(20)
      if (a.value('beside') !== String(round)) late += 1
    }
    const seconds = (mesh.clock.nowMs - startMs) / SECOND
    // 10,000 in a second, then ten seconds of nothing.
    const most = 10_000 * (Math.floor(seconds / 10) + 1)
    expect(a.replica.list('held').length).toBeGreaterThan(0)
    expect(a.replica.list('held').length).toBeLessThanOrEqual(most)
    expect(late).toBe(0)
    expect(a.count('sync.flooded')).toBeGreaterThan(0)
  }, 120_000)

  test('that turns inspection off is in the history of every node, with its name, and is undone', () => {
    const [a, evil] = [new Room(), new Room()]
    try {
      meet(a, evil)
      evil.changes.setSetting('eve', 'inspect.inspectors', [])
      evil.changes.setSetting('eve', 'policy.hold', 14)
      meet(a, evil)
      expect(a.live.current.settings['inspect.inspectors']).toEqual([])
      const history = a.changes.history(10)
      expect(history.map(({ author, key }) => `${author} ${key}`)).toEqual([
        'eve setting/policy.hold',
        'eve setting/inspect.inspectors',
      ])
      for (const { id } of history) a.changes.undo('ann', id)
      meet(a, evil)
      for (const { live } of [a, evil]) {
        expect(live.current.settings['inspect.inspectors']).not.toEqual([])
        expect(live.current.settings['policy.hold']).toBe(8)
      }
    } finally {
      for (const room of [a, evil]) {
        room.close()
        room.remove()
      }
    }
  })
})

describe('a node that comes back after 60 days (K11)', () => {
  function story(wrap: MeshNode['wrap'] = (rows) => rows) {
    const mesh = new Mesh()
    const [a, b, c] = mesh.add(3, false) as [MeshNode, MeshNode, MeshNode]
    for (const node of [a, b, c]) {
      node.wrap = wrap
      node.start()
    }
    mesh.join()
    mesh.run(500)
    for (const key of ['kept', 'deleted', 'edited']) a.set(key, '1')
    mesh.run(10 * SECOND)
    c.crash(c.sqlite.serialize())
    a.set('deleted', null)
    b.set('edited', '2')
    mesh.run(10 * SECOND)
    // All clocks go on; a beat each five seconds for so long would prove nothing more.
    for (const node of [a, b, c]) node.skewMs = 60 * DAY
    mesh.run(5 * MINUTE)
    const isKept = [a, b].every(({ replica }) => {
      const cell = replica.cell('setting', 'deleted')
      return cell !== null && isTombstone(cell)
    })
    c.start()
    c.set('while away', '1')
    mesh.join()
    mesh.run(10 * SECOND)
    const values = ['kept', 'deleted', 'edited', 'while away'].map((key) =>
      [a, b, c].map((node) => node.value(key) ?? null),
    )
    return { mesh, a, b, c, isKept, values }
  }

  test('brings nothing back that was deleted, and takes what it missed', () => {
    const { mesh, a, b, c, isKept, values } = story()
    expect(isKept).toBe(true)
    expect(values).toEqual([
      ['1', '1', '1'],
      [null, null, null],
      ['2', '2', '2'],
      ['1', '1', '1'],
    ])
    expect(roots(a, b, c)).toBe(1)
    // Now that it has acknowledged the deletion too, nobody keeps it any longer.
    mesh.run(5 * MINUTE)
    expect([a, b, c].map(({ replica }) => replica.cell('setting', 'deleted'))).toEqual([
      null,
      null,
      null,
    ])
    expect([a, b, c].map(({ sync }) => sync.repairs)).toEqual([0, 0, 0])
  })

  const unasked = (rows: SharedRows): SharedRows =>
    replaced(rows, { collect: (_, limit) => rows.collect(rows.vector(), limit) })

  test('brings nothing back that the others forgot without its acknowledgement', () => {
    const { a, b, c, values } = story(unasked)
    expect(a.replica.cell('setting', 'deleted')).toBeNull()
    expect(values[1]).toEqual([null, null, null])
    expect([a, b, c].map(({ sync }) => sync.repairs)).toEqual([0, 0, 0])
  })

  test('would need its digest for that if they kept from it what they forgot', () => {
    const { c } = story((rows) =>
      replaced(unasked(rows), {
        read: (after, seen, bytesMax) => {
          const out = rows.read(after, seen, bytesMax)
          const isShown = (row: unknown): boolean => {
            const { kind, key } = row as SharedRow
            return (rows.cell(kind, key) ?? rows.owned(kind, key)) !== null
          }
          return { ...out, rows: out.rows.filter(isShown) }
        },
      }),
    )
    expect(c.sync.repairs).toBe(1)
  })
})

describe('clocks that are wrong (K12)', () => {
  test('five days ahead, an hour behind, in 1970: what came after is in force, and mends by itself', () => {
    const [mesh, ...nodes] = cluster(6) as [Mesh, ...MeshNode[]]
    const [good, , , ahead, behind, ancient] = nodes as [
      MeshNode,
      MeshNode,
      MeshNode,
      MeshNode,
      MeshNode,
      MeshNode,
    ]
    const values = (key: string) => nodes.map((node) => node.value(key) ?? 'none')
    good.set('k', 'good')
    mesh.run(SECOND)
    behind.skewMs = -60 * MINUTE
    behind.set('k', 'behind')
    mesh.run(SECOND)
    expect(values('k')).toEqual(Array(6).fill('behind'))
    ancient.skewMs = -ancient.wallMs()
    ancient.set('k', 'ancient')
    mesh.run(SECOND)
    expect(good.value('k')).toBe('ancient')
    ahead.skewMs = 5 * DAY
    ahead.set('k', 'ahead')
    good.set('other', '1')
    mesh.run(30 * SECOND)
    // Of the future nothing is in force: not on the right ones what the first one wrote, and not
    // what the right ones write on those that are behind.
    expect(values('k').slice(0, 3)).toEqual(['ancient', 'ancient', 'ancient'])
    expect(values('other')).toEqual(['1', '1', '1', '1', 'none', 'none'])
    // Who is wrong says so, by name of the way; who is right does not.
    const troubles = nodes.map(({ sync }) => /ahead of|behind/.exec(sync.clockTrouble() ?? '')?.[0])
    expect(troubles).toEqual([undefined, undefined, undefined, 'ahead of', 'behind', 'behind'])
    // Set right while they run, one after the other.
    for (const node of [ancient, behind, ahead]) {
      node.skewMs = 0
      mesh.run(MINUTE)
    }
    expect(values('other')).toEqual(Array(6).fill('1'))
    expect(nodes.map(({ sync }) => sync.clockTrouble())).toEqual(Array(6).fill(null))
    // What was written in the future comes in force when its time has come.
    for (const node of nodes) node.skewMs = 5 * DAY
    mesh.run(5 * MINUTE)
    expect(values('k')).toEqual(Array(6).fill('ahead'))
    expect(roots(...nodes)).toBe(1)
    expect(nodes.map(({ replica }) => replica.parked)).toEqual(Array(6).fill(0))
    expect(nodes.map(({ sync }) => sync.repairs)).toEqual(Array(6).fill(0))
  })
})

describe('a database that is not what was written (K20)', () => {
  const directory = mkdtempSync(join(tmpdir(), 'postern-damage-'))
  afterAll(() => rmSync(directory, { recursive: true, force: true }))

  const PARTS = ['state.db', 'state.db-wal', 'state.db-shm', 'trace.db', 'setup-code'] as const
  let copies = 0

  /** The directory of a room as a power cut leaves it, elsewhere. */
  function copyOf(from: string): string {
    copies += 1
    const to = mkdtempSync(join(directory, `${copies}-`))
    for (const part of PARTS) {
      if (existsSync(join(from, part))) copyFileSync(join(from, part), join(to, part))
    }
    return to
  }

  function content({ rows }: Room): string {
    const names = Array.from({ length: 256 }, (_, leaf) => rows.leaf(leaf))
    return JSON.stringify(
      rows.rowsOf(
        names
          .flat()
          .map(({ name }) => name)
          .sort(),
      ),
    )
  }

  /** Its rows when it starts; null: it is refused, with the way out. */
  function opened(at: string): string | null {
    try {
      const room = new Room(at)
      try {
        return content(room)
      } finally {
        room.close()
      }
    } catch (error) {
      expect(error).toBeInstanceOf(RefusalError)
      if (error instanceof DamagedError) expect(error.advice).toContain('--rebuild-state')
      return null
    }
  }

  function filled(): Room {
    const room = new Room(mkdtempSync(join(directory, 'room-')))
    for (let at = 0; at < 60; at += 1) {
      room.changes.putDomain('ann', {
        name: `d${at}.example`,
        nextHops: [{ protocol: 'smtp', host: '192.0.2.1', port: 25 }],
        recipients: Array.from({ length: 20 }, (_, one) => `r${one}`),
        hold: null,
        reject: null,
      })
    }
    return room
  }

  test('is refused, or every row of it is: bits flipped in every page', () => {
    const room = filled()
    room.close()
    const whole = opened(room.directory)
    expect(whole).not.toBeNull()
    const bytes = readFileSync(join(room.directory, 'state.db'))
    const random = new SeededRandom(3)
    let refused = 0
    const pages = bytes.length / 4_096
    expect(pages).toBeGreaterThan(20)
    for (let page = 0; page < pages; page += 1) {
      const at = copyOf(room.directory)
      const changed = Buffer.from(bytes)
      for (let flip = 0; flip < 8; flip += 1) {
        const place = page * 4_096 + random.below(4_096)
        changed[place] = (changed[place] ?? 0) ^ (1 << random.below(8))
      }
      writeFileSync(join(at, 'state.db'), changed)
      const found = opened(at)
      if (found === null) refused += 1
      else expect(found).toBe(whole as string)
      rmSync(at, { recursive: true })
    }
    expect(refused).toBeGreaterThan(pages / 3)
  }, 60_000)

  test('of which the log was deleted, or belongs to another time, agrees with its peer again', () => {
    const room = filled()
    const peer = new Room(mkdtempSync(join(directory, 'peer-')), room.clock)
    meet(room, peer)
    room.databases.state.checkpoint('TRUNCATE')
    const backup = copyOf(room.directory)
    for (let at = 0; at < 20; at += 1) {
      room.changes.removeDomain('ann', `d${at}.example`)
      room.clock.advance(10)
    }
    meet(room, peer)
    room.databases.state.checkpoint('PASSIVE')
    for (let at = 20; at < 30; at += 1) room.changes.removeDomain('ann', `d${at}.example`)
    meet(room, peer)
    const cut = copyOf(room.directory)
    room.close()
    expect(existsSync(join(cut, 'state.db-wal'))).toBe(true)
    const without = copyOf(cut)
    rmSync(join(without, 'state.db-wal'))
    rmSync(join(without, 'state.db-shm'), { force: true })
    // The database of the backup beside the log of later.
    const half = copyOf(cut)
    copyFileSync(join(backup, 'state.db'), join(half, 'state.db'))
    let agreed = 0
    for (const at of [backup, without, half, cut]) {
      if (opened(at) === null) continue
      const again = new Room(at, room.clock)
      meet(again, peer)
      expect(content(again)).toBe(content(peer))
      expect(again.changes.history(5)).toEqual(peer.changes.history(5))
      expect(peer.live.current.domains.size).toBe(30)
      again.close()
      agreed += 1
    }
    expect(agreed).toBeGreaterThanOrEqual(3)
    peer.close()
  }, 60_000)

  test('a row whose text was changed in place is named', () => {
    const room = filled()
    room.close()
    const sqlite = new Database(join(room.directory, 'state.db'))
    sqlite.run(
      "UPDATE shared SET state = replace(state, 'r19', 'r91') WHERE key LIKE 'd7.example%'",
    )
    sqlite.close()
    expect(() => new Room(room.directory)).toThrow(
      /the row domain\/d7\.example.* is not what was written/,
    )
  })
})
