/** Held mail: sealed files, their index, and the claims about it. */
import { describe, expect, test } from 'bun:test'
import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { StoreError } from '../src/base/errors.ts'
import type { MessageId } from '../src/base/ids.ts'
import { SeededRandom } from '../src/base/random.ts'
import type { Claim } from '../src/message/rows.ts'
import { Bodies, FRAME_BYTES, type HeldBytes } from '../src/store/bodies.ts'
import type { Former } from '../src/store/held-row.ts'
import { parseQuery } from '../src/store/query.ts'
import { failure, type Room, refusal, rooms } from './rooms.ts'

const { ended, reopened, room } = rooms()

describe('a held body', () => {
  const bytesOf = (length: number): Uint8Array => new SeededRandom(length + 1).bytes(length)
  const collect = async (bodies: Bodies, id: MessageId): Promise<Buffer | null> => {
    const opened = await bodies.read(id)
    if (opened === null) return null
    const pieces: Uint8Array[] = []
    for await (const piece of opened.pieces) pieces.push(piece)
    return Buffer.concat(pieces)
  }
  async function* inPieces(...pieces: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
    for (const piece of pieces) yield piece
  }
  const pathOf = (here: Room, id: string) => join(here.directory, 'held', id.slice(-1), id)

  test.each([0, 1, 1_000, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES + 5])(
    'of %d bytes comes back as it was, from memory and from pieces',
    async (length) => {
      const here = room()
      const bytes = bytesOf(length)
      const half = Math.floor(length / 2)
      const pieces = inPieces(bytes.subarray(0, half), bytes.subarray(half))
      const bodies: HeldBytes[] = [
        { kind: 'memory', bytes },
        { kind: 'pieces', pieces, sizeBytes: length },
      ]
      for (const body of bodies) {
        const mail = here.held()
        await here.bodies.write(mail, body)
        expect((await collect(here.bodies, mail.row.id))?.equals(bytes)).toBe(true)
        expect(await here.bodies.meta(mail.row.id)).toEqual(mail)
        expect((await here.bodies.read(mail.row.id))?.sizeBytes).toBe(length)
        expect(statSync(pathOf(here, mail.row.id)).mode & 0o777).toBe(0o600)
      }
    },
  )

  test('stands on the disk as nothing that can be read', async () => {
    const here = room()
    const mail = here.held({ subject: 'A very secret subject' })
    await here.bodies.write(mail, { kind: 'memory', bytes: Buffer.from('A very secret text') })
    const file = readFileSync(pathOf(here, mail.row.id), 'latin1')
    expect(file).not.toContain('secret')
    expect(file).not.toContain('example.com')
  })

  test('with any bit flipped, or cut anywhere, is an error and never a message', async () => {
    const here = room()
    const mail = here.held()
    await here.bodies.write(mail, { kind: 'memory', bytes: bytesOf(300) })
    const path = pathOf(here, mail.row.id)
    const whole = readFileSync(path)
    for (let position = 0; position < whole.length; position++) {
      const flipped = Buffer.from(whole)
      flipped[position] = (flipped[position] ?? 0) ^ (1 << (position % 8))
      writeFileSync(path, flipped)
      expect(await failure(() => collect(here.bodies, mail.row.id))).toBeInstanceOf(StoreError)
    }
    for (let length = 0; length < whole.length; length += 7) {
      writeFileSync(path, whole.subarray(0, length))
      expect(await failure(() => collect(here.bodies, mail.row.id))).toBeInstanceOf(StoreError)
    }
    writeFileSync(path, whole)
    expect((await collect(here.bodies, mail.row.id))?.length).toBe(300)
  })

  test('under the name of another message, or with frames in another order, is an error', async () => {
    const here = room()
    const first = here.held()
    const second = here.held()
    const bytes = bytesOf(3 * FRAME_BYTES)
    await here.bodies.write(first, { kind: 'memory', bytes })
    await here.bodies.write(second, { kind: 'memory', bytes })
    const whole = readFileSync(pathOf(here, first.row.id))
    const sealed = FRAME_BYTES + 16
    const start = whole.length - 3 * sealed
    const swapped = Buffer.concat([
      whole.subarray(0, start),
      whole.subarray(start + sealed, start + 2 * sealed),
      whole.subarray(start, start + sealed),
      whole.subarray(start + 2 * sealed),
    ])
    writeFileSync(pathOf(here, first.row.id), swapped)
    expect(await failure(() => collect(here.bodies, first.row.id))).toBeInstanceOf(StoreError)
    writeFileSync(pathOf(here, second.row.id), whole)
    expect(await failure(() => collect(here.bodies, second.row.id))).toBeInstanceOf(StoreError)
  })

  test('of 48 MB is written and read with the memory of a few frames', async () => {
    const here = room()
    const length = 48 * 1024 * 1024
    const piece = Buffer.alloc(FRAME_BYTES, 'x')
    const mail = here.held()
    const before = process.memoryUsage.rss()
    await here.bodies.write(mail, {
      kind: 'pieces',
      pieces: inPieces(...Array.from({ length: length / FRAME_BYTES }, () => piece)),
      sizeBytes: length,
    })
    let read = 0
    const opened = await here.bodies.read(mail.row.id)
    for await (const piece of opened?.pieces ?? []) {
      read += piece.length
      expect(piece.length).toBeLessThanOrEqual(FRAME_BYTES)
    }
    expect(read).toBe(length)
    // Three times the size of the message would be the price of holding it.
    expect(process.memoryUsage.rss() - before).toBeLessThan(40 * 1024 * 1024)
  })

  test('that is not as long as it says leaves nothing', async () => {
    const here = room()
    const mail = here.held()
    for (const sizeBytes of [4, 9]) {
      const pieces = inPieces(Buffer.from('short'))
      const lying: HeldBytes = { kind: 'pieces', pieces, sizeBytes }
      expect(await failure(() => here.bodies.write(mail, lying))).toBeInstanceOf(StoreError)
    }
    expect(readdirSync(join(here.directory, 'held', mail.row.id.slice(-1)))).toEqual([])
    expect(here.bodies.list()).toEqual([])
    expect(await here.bodies.read(mail.row.id)).toBeNull()
  })

  test('is listed; what a crash left is not, and goes', async () => {
    const here = room()
    const mail = here.held()
    await here.bodies.write(mail, { kind: 'memory', bytes: bytesOf(10) })
    const path = pathOf(here, mail.row.id)
    copyFileSync(path, `${path}.new`)
    expect(here.bodies.list()).toEqual([mail.row.id])
    expect(existsSync(`${path}.new`)).toBe(false)
    expect(here.bodies.has(mail.row.id)).toBe(true)
    await here.bodies.remove(mail.row.id)
    await here.bodies.remove(mail.row.id)
    expect(here.bodies.list()).toEqual([])
    expect(here.bodies.has(mail.row.id)).toBe(false)
  })

  test('without its key is not given up: the start is refused', async () => {
    const here = room()
    await here.bodies.write(here.held(), { kind: 'memory', bytes: bytesOf(10) })
    renameSync(join(here.directory, 'held.key'), join(here.directory, 'elsewhere'))
    expect(() => new Bodies(here.directory, { random: here.random })).toThrow(StoreError)
  })
})

describe('held mail', () => {
  const release = (by: string, atMs = 1): Claim => ({ kind: 'release', by, atMs })

  test('is seen at once and after a restart', () => {
    const first = room()
    const mail = first.held()
    first.quarantine.add(mail)
    const { node } = first
    const shown = { ...mail.row, owner: node, holders: [], pending: [] }
    expect(first.quarantine.one(mail.row.id)?.row).toEqual(shown)
    expect(first.quarantine.count()).toBe(1)
    const second = reopened(first)
    expect(second.quarantine.one(mail.row.id)?.row).toEqual(shown)
  })

  test('is decided once for each recipient: the first claim wins, whatever comes after', () => {
    const here = room()
    const kinds = ['release', 'delete', 'expire'] as const
    const step = fc.record({
      kind: fc.constantFrom(...kinds),
      places: fc.option(fc.uniqueArray(fc.integer({ min: 0, max: 3 }), { minLength: 1 })),
      by: fc.constantFrom('ruiz', 'nagy', 'cli'),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 8 }), (steps) => {
        const mail = here.held({}, [0, 2])
        here.quarantine.add(mail)
        const expected = new Map<number, Claim>()
        for (const [index, { kind, places, by }] of steps.entries()) {
          const claim: Claim = { kind, by, atMs: index }
          for (const { place, won, claim: stands } of here.quarantine.claim(
            mail.row.id,
            places,
            claim,
          )) {
            expect([0, 2]).toContain(place)
            expect(won).toBe(!expected.has(place))
            if (won) expected.set(place, claim)
            expect(stands).toEqual(expected.get(place) ?? claim)
          }
        }
        const entry = here.quarantine.one(mail.row.id)
        expect(entry?.copies.map(({ claim }) => claim)).toEqual(
          [0, 2].map((place) => expected.get(place) ?? null),
        )
        expect(entry?.row.recipients).toHaveLength(2 - expected.size)
        const listed = here.quarantine.search(parseQuery(`id:${mail.row.id}`, 0), {
          limit: 5,
          cursor: null,
        })
        expect(listed.total).toBe(expected.size < 2 ? 1 : 0)
      }),
      { numRuns: 100 },
    )
  })

  test('that is added again stays as it was decided', () => {
    const here = room()
    const mail = here.held()
    here.quarantine.add(mail)
    here.quarantine.claim(mail.row.id, [0], release('ruiz'))
    here.quarantine.add(mail)
    expect(here.quarantine.one(mail.row.id)?.copies.map(({ claim }) => claim)).toEqual([
      release('ruiz'),
      null,
    ])
    here.quarantine.claim(mail.row.id, [0], release('nagy'))
    expect(here.quarantine.count()).toBe(1)
  })

  test('that is not known gives no claim', () => {
    const here = room()
    expect(here.quarantine.claim(here.ids.next(), null, release('cli'))).toEqual([])
    expect(here.quarantine.one(here.ids.next())).toBeNull()
  })

  test('released and not known to be in the queue is pending after a restart, each click apart', () => {
    const first = room()
    const mail = first.held({}, [0, 1, 2])
    first.quarantine.add(mail)
    const { id } = mail.row
    first.quarantine.claim(id, [0, 1], release('ruiz', 5))
    first.quarantine.claim(id, [2], release('nagy', 6))
    const second = reopened(first)
    expect(second.quarantine.pendingReleases()).toEqual([
      { id, places: [0, 1], claim: release('ruiz', 5) },
      { id, places: [2], claim: release('nagy', 6) },
    ])
    second.quarantine.markEnqueued(id, [0, 1], release('ruiz', 5))
    expect(second.quarantine.pendingReleases()).toEqual([
      { id, places: [2], claim: release('nagy', 6) },
    ])
    expect(
      second.quarantine.claim(id, [0, 2], release('cli')).map(({ enqueued }) => enqueued),
    ).toEqual([true, false])
  })

  test('that went out in doubt is counted by that for one former owner, for each further one again', () => {
    const here = room()
    const { quarantine } = here
    const mail = here.held({}, [0, 1, 2])
    quarantine.add(mail)
    const { id } = mail.row
    quarantine.claim(id, null, release('ruiz', 5))
    const sent = (place: number, doubted: readonly number[]): number =>
      quarantine.markEnqueued(id, [place], release('ruiz', 5), doubted)
    /** A former owner says that it had sent it, by a release of `atMs`. */
    const told = (place: number, atMs: number): readonly boolean[] =>
      quarantine
        .merge(id, [place], release('nagy', atMs), 'sent')
        .doubled.map(({ isCounted }) => isCounted)
    expect([sent(0, [0, 2]), told(0, 3), told(0, 3), told(0, 4)]).toEqual([1, [true], [], [false]])
    expect([sent(1, [0]), told(1, 3)]).toEqual([0, [false]])
    // It is told while it goes out here.
    expect([told(2, 3), sent(2, []), told(2, 4)]).toEqual([[], 1, [false]])
  })

  test('that two former owners had sent, who tell it at once, is counted for each, and sent no more', () => {
    const here = room()
    const { quarantine } = here
    const mail = here.held()
    quarantine.add(mail)
    const { id } = mail.row
    here.rows.transact(() => {
      for (const [atMs, former] of [
        [3, 'sent'],
        [4, 'sent'],
        [5, 'claimed'],
      ]) {
        const told = { kind: 'release', by: 'nagy', atMs, to: here.node.id, former }
        const key = `${id}/0/00000000000${atMs}`
        here.rows.put('pending', key, [1, 1], JSON.stringify(told), 'nagy', null)
      }
    })
    const merged = quarantine.together(() =>
      quarantine
        .asked()
        .map(({ places, claim, former }) => quarantine.merge(id, places, claim, former ?? 'sent')),
    )
    expect(
      merged.map(({ doubled, claimed }) => [
        doubled.length,
        claimed[0]?.claim.atMs,
        claimed[0]?.enqueued,
      ]),
    ).toEqual([
      [0, 3, true],
      [1, 3, true],
      [0, 3, true],
    ])
    expect(quarantine.asked()).toEqual([])
    expect(quarantine.waiting()).toBe(0)
  })

  test('that a former owner had perhaps sent is decided by that nowhere, and in doubt until it is counted', () => {
    const here = room()
    const { quarantine } = here
    const mail = here.held({}, [0, 1, 2])
    quarantine.add(mail)
    quarantine.flush()
    const { id } = mail.row
    const told = (place: number, atMs: number, former: Former = 'perhaps') => {
      const { claimed, doubled } = quarantine.merge(id, [place], release('nagy', atMs), former)
      return [claimed.length, ...doubled.map(({ isCounted }) => isCounted)]
    }
    const sent = (place: number): number =>
      quarantine.markEnqueued(id, [place], release('ruiz', 5), quarantine.doubted(id, [place]))
    // Two nodes tell it before it goes out here, and the owner itself after that.
    expect([told(0, 3), told(0, 3), quarantine.doubted(id, [0, 1])]).toEqual([[0, true], [0], [0]])
    expect(quarantine.one(id)?.copies[0]?.claim).toBeNull()
    quarantine.claim(id, [0, 1], release('ruiz', 5))
    expect([sent(0), told(0, 3), told(0, 3, 'sent')]).toEqual([1, [0], [1, true]])
    // Of what went out before: counted once.
    expect([sent(1), told(1, 3), told(1, 3), told(1, 3, 'sent')]).toEqual([
      0,
      [0, false],
      [0],
      [1, true],
    ])
    // What stands here is by that very click.
    expect([told(2, 5, 'claimed'), told(2, 5), sent(2)]).toEqual([[1], [0], 0])
  })

  test('that a former owner had perhaps sent is still asked for by whoever clicked', () => {
    const here = room()
    const { quarantine } = here
    const mail = here.held()
    quarantine.add(mail)
    const { id } = mail.row
    here.rows.transact(() => {
      for (const former of ['perhaps', undefined]) {
        const told = { kind: 'release', by: 'nagy', atMs: 3, to: here.node.id, former }
        const key = `${id}/0/00000000000${former === undefined ? 1 : 2}`
        here.rows.put('pending', key, [1, 1], JSON.stringify(told), 'nagy', null)
      }
    })
    const asked = quarantine.asked()
    expect(asked.map(({ former }) => former)).toEqual(['perhaps', null])
    quarantine.merge(id, [0], release('nagy', 3), 'perhaps')
    expect(quarantine.asked().map(({ former }) => former)).toEqual([null])
  })

  test('is rebuilt from its sealed files when the index is lost, and a damaged file is named (K20)', async () => {
    const first = room()
    const mails = [first.held(), first.held(), first.held()]
    for (const mail of mails) {
      await first.bodies.write(mail, { kind: 'memory', bytes: Buffer.from('x') })
      first.quarantine.add(mail)
    }
    ended(first)
    for (const name of readdirSync(first.directory)) {
      if (name.startsWith('state.db')) rmSync(join(first.directory, name))
    }
    const broken = mails[1]?.row.id ?? ''
    writeFileSync(join(first.directory, 'held', broken.slice(-1), broken), 'x')
    const second = room(first.directory, first.clock)
    expect(second.quarantine.count()).toBe(0)
    const { added, damaged } = await second.quarantine.rebuild(second.bodies)
    expect(added).toBe(2)
    expect(damaged.map(String)).toEqual([broken])
    expect(second.quarantine.one(mails[0]?.row.id as MessageId)?.row).toMatchObject(
      mails[0]?.row ?? {},
    )
    expect((await second.quarantine.rebuild(second.bodies)).added).toBe(0)
  })

  test('expires, loses its body after its decision, and is forgotten only when the body is gone', () => {
    const here = room()
    const { quarantine, clock } = here
    const mail = here.held({ expiresMs: clock.wallMs() + 1_000 })
    const { id } = mail.row
    quarantine.add(mail)
    quarantine.flush()
    const away = room()
    const tell = () =>
      away.rows.apply({
        peer: here.node.id,
        rows: here.rows.rowsOf([`held/${id}`]),
        as: { kind: 'repair' },
      })
    tell()
    expect(quarantine.expired(clock.wallMs() + 999, 10)).toEqual([])
    expect(quarantine.expired(clock.wallMs() + 1_000, 10)).toEqual([id])
    quarantine.claim(id, [0], { kind: 'expire', by: 'postern', atMs: 1_000 })
    expect(quarantine.removable(9_999, 10)).toEqual([])
    quarantine.claim(id, [1], release('ruiz', 2_000))
    expect(quarantine.expired(clock.wallMs() + 1_000, 10)).toEqual([])
    expect(quarantine.removable(9_999, 10)).toEqual([])
    quarantine.markEnqueued(id, [1], release('ruiz', 2_000))
    expect(quarantine.removable(1_999, 10)).toEqual([])
    expect(quarantine.removable(2_000, 10)).toEqual([id])
    expect(here.rows.collect(null, 10)).toBe(0)
    quarantine.markBodyGone(id)
    expect(quarantine.removable(9_999, 10)).toEqual([])
    expect(quarantine.one(id)?.bodyGone).toBe(true)
    // Decided seven days ago, and a day for clocks that differ.
    expect(here.rows.owned('held', id)?.untilMs).toBe(2_000 + 7 * 86_400_000)
    expect(here.rows.collect(null, 10)).toBe(1)
    // Nor does it come back with an older spool, or stay where it was open all the time.
    quarantine.add(mail)
    expect(away.quarantine.one(id)).not.toBeNull()
    tell()
    for (const one of [here, away]) {
      expect(one.quarantine.one(id)).toBeNull()
      const { sqlite } = one.databases.state
      expect(sqlite.query('SELECT count(*) AS n FROM held_copy').get()).toEqual({ n: 0 })
    }
  })

  test('is found by the same language, among what is held now', () => {
    const here = room()
    const find = (text: string) =>
      here.quarantine
        .search(parseQuery(text, here.clock.wallMs(), ['held', 'unknown']), {
          limit: 10,
          cursor: null,
        })
        .rows.map(({ subject }) => subject)
    here.quarantine.add(here.held({ subject: 'One', from: 'ÄRGER <x@y.example>' }, [0]))
    here.quarantine.add(
      here.held({ subject: 'Two', unknowns: [{ inspector: 'x', cause: 'y' }] }, [1]),
    )
    const decided = here.held({ subject: 'Three' }, [1, 2])
    here.quarantine.add(decided)
    here.quarantine.claim(decided.row.id, [1], release('ruiz'))
    expect(find('')).toEqual(['Three', 'Two', 'One'])
    expect(find('ärger')).toEqual(['One'])
    expect(find('from:ärger')).toEqual(['One'])
    expect(find('subject:ärger')).toEqual([])
    expect(find('to:c@')).toEqual(['Two'])
    expect(find('to:d@')).toEqual(['Three'])
    expect(find('is:unknown')).toEqual(['Two'])
    expect(find('rule:GTUBE score:>=10 -two')).toEqual(['Three', 'One'])
    expect(parseQuery('is:delivered', 0, ['held', 'unknown']).mistakes[0]).toContain('is:delivered')
  })

  test('pages once through all', () => {
    const here = room()
    for (let count = 0; count < 25; count++) here.quarantine.add(here.held())
    const query = parseQuery('', 0)
    const first = here.quarantine.search(query, { limit: 20, cursor: null })
    const second = here.quarantine.search(query, { limit: 20, cursor: first.cursor })
    expect([first.rows.length, second.rows.length, first.total, second.total]).toEqual([
      20, 5, 25, 25,
    ])
    expect(second.cursor).toBeNull()
    expect(new Set([...first.rows, ...second.rows].map(({ id }) => id)).size).toBe(25)
    expect(refusal(() => here.quarantine.search(query, { limit: 1, cursor: 'x' })).field).toBe(
      'cursor',
    )
  })
})
