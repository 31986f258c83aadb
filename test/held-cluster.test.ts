/** Held mail on several nodes: seen from every one, decided by its owner, released once. */
import { afterEach, describe, expect, test } from 'bun:test'
import type { MailActions } from '../src/admin/mail-actions.ts'
import { messagesPart } from '../src/admin/messages.ts'
import { queuePart } from '../src/admin/queue.ts'
import type { QueuePeers } from '../src/admin/queue-peers.ts'
import type { MessageId } from '../src/base/ids.ts'
import { isTombstone } from '../src/config/merge.ts'
import { parseQuery } from '../src/store/query.ts'
import {
  away,
  carried,
  closePosts,
  DAY_MS,
  NAGY,
  type Post,
  posts,
  RUIZ,
  settled,
  two,
} from './posts.ts'
import { refused as refusal } from './rooms.ts'

afterEach(closePosts)

const ANY = { text: '', limit: 50, cursor: null }

describe('held mail', () => {
  test('is listed, counted and found on every node, with its owner', async () => {
    const { wires, a, b } = two()
    const id = await a.hold()
    const own = await b.hold()
    wires.exchange()
    for (const one of [a, b]) {
      const found = one.held.held(ANY)
      expect(found.rows.map((row) => [String(row.id), row.owner.name])).toEqual(
        [
          [id, 'mx1'],
          [own, 'mx2'],
        ]
          .sort()
          .reverse(),
      )
      expect(one.quarantine.count()).toBe(2)
      expect(one.quarantine.countOf(one.node.id)).toBe(1)
      for (const text of ['node:MX1', `node:${a.node.id}`, '-node:mx2']) {
        const { rows } = one.held.held({ ...ANY, text })
        expect(rows.map((row) => String(row.id))).toEqual([id])
      }
    }
    expect(b.shown()).toBe(a.shown())
  })

  test('is shown and downloaded from its owner', async () => {
    const { wires, a, b } = two()
    const text = `Subject: x\r\n\r\n${'line '.repeat(100_000)}\r\n`
    const id = await a.hold(1, text)
    wires.exchange()
    const { stream, sizeBytes } = await b.held.heldSource(id)
    expect(await new Response(stream).text()).toBe(text)
    expect(sizeBytes).toBe(text.length)
    expect((await b.held.heldPreview(id)).subject).toBe('memory')
    wires.cut.add('mx1')
    for (const act of [() => b.held.heldSource(id), () => b.held.heldPreview(id)]) {
      const error = await refusal(act)
      expect(error.code).toBe('unavailable')
      expect(error.message).toBe(
        'The content of this mail is on mx1, which has not answered since 12:00.',
      )
    }
  })

  test('is released once, whoever clicks where', async () => {
    const { wires, a, b } = two()
    const ids: MessageId[] = []
    for (let count = 0; count < 50; count++) ids.push(await a.hold(), await b.hold())
    wires.exchange()
    const clicks = ids.flatMap((id) => [a.held.release(RUIZ, id), b.held.release(NAGY, id)])
    const ends = await Promise.allSettled(clicks)
    expect(ends.filter(({ status }) => status === 'fulfilled')).toHaveLength(100)
    expect([...a.sent, ...b.sent].sort()).toEqual(
      ids.flatMap((id) => [`${id} 0`, `${id} 1`]).sort(),
    )
    // A hundred questions that are asked at once are one trip each way.
    expect(wires.asks).toBe(2)
    for (const end of ends) {
      if (end.status !== 'rejected') continue
      expect(end.reason).toMatchObject({ code: 'conflict' })
      expect(end.reason.message).toMatch(/^The mail was already released by (ruiz|nagy) at \d{4}-/)
    }
    wires.exchange()
    expect(a.quarantine.count()).toBe(0)
    expect(b.shown()).toBe(a.shown())
  })

  test('released elsewhere says so, before its rows have come and after', async () => {
    const { wires, a, b } = two()
    const id = await a.hold()
    wires.exchange()
    const detail = await b.held.release(NAGY, id, 'R1@example.com')
    expect(detail.row.recipients).toEqual(['r0@example.com'])
    expect(detail.claims).toMatchObject([
      { kind: 'release', by: 'nagy', recipient: 'r1@example.com' },
    ])
    const error = await refusal(() => b.held.deleteHeld(NAGY, id, 'r1@example.com'))
    expect(error.message).toStartWith('The mail was already released by nagy at')
    wires.exchange()
    const { asks } = wires
    const again = await refusal(() => b.held.release(RUIZ, id, 'r1@example.com'))
    expect(again.message).toBe(error.message)
    // What is known to be decided needs no question.
    expect(wires.asks).toBe(asks)
    expect(a.audited).toEqual(['nagy held.release'])
    expect((await refusal(() => b.held.release(RUIZ, id, 'x@y.example'))).field).toBe('recipient')
  })

  test('whose owner cannot queue it now says that, and is no note', async () => {
    const { wires, a, b } = two()
    const id = await a.hold()
    wires.exchange()
    a.queue = 'refuses'
    const error = await refusal(() => b.held.release(NAGY, id))
    expect(error.code).toBe('unavailable')
    expect(error.message).toContain('the queue cannot take the mail now')
    wires.exchange()
    expect(b.held.heldOne(id).row.pending).toEqual([])
    a.queue = 'takes'
    await b.held.release(NAGY, id)
    expect(a.sent).toEqual([`${id} 0`, `${id} 1`])
  })
})

describe('a click while the owner is away', () => {
  test('waits for it, is shown everywhere, and runs once when it is back', async () => {
    const { wires, all } = posts(3)
    const [a, b, c] = all as readonly [Post, Post, Post]
    const id = await a.hold()
    wires.exchange()
    wires.cut.add('mx1')
    const detail = await b.held.release(NAGY, id)
    const click = { kind: 'release', by: 'nagy', to: a.node } as const
    expect(detail.row.pending).toMatchObject([
      { ...click, recipient: 'r0@example.com' },
      { ...click, recipient: 'r1@example.com' },
    ])
    wires.exchange()
    expect(c.held.heldOne(id).row.pending).toEqual(detail.row.pending)
    expect(c.held.held(ANY).rows[0]?.pending).toHaveLength(2)
    const second = await refusal(() => c.held.deleteHeld(RUIZ, id))
    expect(second.code).toBe('conflict')
    expect(second.message).toMatch(
      /^Release was already asked for by nagy at .*; it waits for mx1, which has not answered since 12:00\.$/,
    )
    expect(b.audited).toEqual(['nagy held.ask'])
    wires.cut.clear()
    wires.exchange()
    await settled()
    expect(a.sent.sort()).toEqual([`${id} 0`, `${id} 1`])
    expect(a.audited).toEqual(['nagy held.release'])
    for (let round = 0; round < 3; round++) wires.exchange()
    await settled()
    expect(a.sent).toHaveLength(2)
    expect([b.sent, c.sent]).toEqual([[], []])
    for (const one of all) {
      for (const { state } of one.rows.list('pending')) expect(isTombstone(state)).toBe(true)
      expect(one.held.heldOne(id)).toMatchObject({ row: { recipients: [], pending: [] } })
      expect(one.shown()).toBe(a.shown())
    }
  })

  test('whose answer was lost is answered by the claim that it made, and is not run again', async () => {
    const { wires, a, b } = two()
    const id = await a.hold()
    wires.exchange()
    wires.losesAnswers = true
    expect((await b.held.release(NAGY, id)).row.pending).toHaveLength(2)
    wires.exchange()
    await settled()
    wires.exchange()
    expect(a.sent).toEqual([`${id} 0`, `${id} 1`])
    expect(b.held.heldOne(id).row.pending).toEqual([])
    expect(b.held.heldOne(id).claims).toHaveLength(2)
  })

  test('made apart from another: the first counts, but a release before a deletion (K16)', async () => {
    const { wires, all } = posts(3)
    const [a, b, c] = all as readonly [Post, Post, Post]
    const first = await a.hold(1)
    const second = await a.hold(1)
    wires.exchange()
    a.isDown = true
    wires.cut.add('mx2')
    await c.held.release(RUIZ, first)
    await c.held.deleteHeld(RUIZ, second)
    a.clock.advance(5_000)
    await b.held.release(NAGY, first)
    await b.held.release(NAGY, second)
    wires.cut.clear()
    wires.exchange()
    expect(b.shown()).toBe(c.shown())
    expect(c.held.heldOne(second).row.pending).toMatchObject([{ kind: 'release', by: 'nagy' }])
    a.isDown = false
    wires.exchange()
    await settled()
    wires.exchange()
    expect(a.sent.sort()).toEqual([`${first} 0`, `${second} 0`])
    expect(c.held.heldOne(first).claims).toMatchObject([{ kind: 'release', by: 'ruiz' }])
    expect(c.held.heldOne(second).claims).toMatchObject([{ kind: 'release', by: 'nagy' }])
  })

  test('gives way to a decision that its owner made meanwhile', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1)
    wires.exchange()
    wires.cut.add('mx2')
    await b.held.release(NAGY, id)
    await a.held.deleteHeld(RUIZ, id)
    wires.cut.clear()
    wires.exchange()
    await settled()
    wires.exchange()
    expect(a.sent).toEqual([])
    expect(b.held.heldOne(id)).toMatchObject({
      row: { pending: [] },
      claims: [{ kind: 'delete', by: 'ruiz' }],
    })
  })

  test('holds back the expiry, also when the owner was away past it', async () => {
    const { wires, a, b } = two()
    const asked = await a.hold(1)
    const forgotten = await a.hold(1)
    wires.exchange()
    a.stop()
    await b.held.release(NAGY, asked)
    a.clock.setWall(40 * DAY_MS)
    expect(b.rows.collect(null, 100)).toBe(0)
    await a.start(false)
    // Its own clock says that both are over; the click is there and has not run.
    wires.exchange()
    expect(a.quarantine.expired(a.clock.wallMs(), 10)).toEqual([forgotten])
    a.decisions.start()
    await settled()
    expect(a.sent).toEqual([`${asked} 0`])
  })

  test('runs after a restart of its owner that had it on its disk already', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1)
    wires.exchange()
    wires.cut.add('mx1')
    await b.held.release(NAGY, id)
    wires.cut.clear()
    // It arrives, and the process dies before anything of it ran.
    a.stop()
    await a.start(false)
    wires.exchange()
    a.stop()
    expect(a.sent).toEqual([])
    await a.start()
    await settled()
    expect(a.sent).toEqual([`${id} 0`])
  })

  test('is retried when the queue of its owner refuses it', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1)
    wires.exchange()
    wires.cut.add('mx1')
    await b.held.release(NAGY, id)
    wires.cut.clear()
    a.queue = 'refuses'
    wires.exchange()
    await settled()
    expect(a.quarantine.pendingReleases()).toHaveLength(1)
    a.clock.advance(59_999)
    await settled()
    a.queue = 'takes'
    a.clock.advance(1)
    await settled()
    expect(a.sent).toEqual([`${id} 0`])
    expect(a.quarantine.pendingReleases()).toEqual([])
  })

  test('and others that are refused are retried together: one retry at a time, a minute after the first', async () => {
    const { wires, a, b } = two()
    const ids = [await a.hold(1), await a.hold(1)] as const
    wires.exchange()
    a.queue = 'refuses'
    const failed = () => a.observer.count('store_failed_total')
    const clickApart = async (id: MessageId) => {
      wires.cut.add('mx1')
      await b.held.release(NAGY, id)
      wires.cut.clear()
      wires.exchange()
      await settled()
    }
    const advance = async (ms: number) => {
      a.clock.advance(ms)
      await settled()
    }
    await clickApart(ids[0])
    expect(failed()).toBe(1)
    await advance(30_000)
    await clickApart(ids[1])
    expect(failed()).toBe(2)
    await advance(30_000)
    expect(failed()).toBe(4)
    // The second refusal planned no retry of its own.
    await advance(59_999)
    expect(failed()).toBe(4)
    await advance(1)
    expect(failed()).toBe(6)
    a.queue = 'takes'
    await advance(60_000)
    expect(a.sent.toSorted()).toEqual(ids.map((id) => `${id} 0`).toSorted())
    await advance(300_000)
    expect(a.sent).toHaveLength(2)
    expect(failed()).toBe(6)
  })
})

describe('an owner', () => {
  test('answers for its own mail only, and checks what it is asked', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1)
    wires.exchange()
    const ask = { id, recipient: null, kind: 'release', by: 'nagy' }
    const answer = await b.decisions.answerDecide({ asks: [ask] })
    expect(answer.value).toMatchObject({ answers: [{ refusal: { code: 'notFound' } }] })
    expect((await refusal(() => b.decisions.answerBody({ id }))).code).toBe('notFound')
    const wrong: unknown[] = [
      null,
      {},
      { asks: {} },
      { asks: Array.from({ length: 101 }, () => ask) },
      ...['id', 'recipient', 'kind', 'by'].map((field) => ({ asks: [{ ...ask, [field]: 7 }] })),
      { asks: [{ ...ask, id: '../x' }] },
      { asks: [{ ...ask, kind: 'expire' }] },
    ]
    for (const value of wrong) {
      expect((await refusal(() => a.decisions.answerDecide(value))).code).toBe('invalid')
    }
    for (const value of [null, {}, { id: 7 }, { id: '../x' }]) {
      expect((await refusal(() => a.decisions.answerBody(value))).code).toBe('invalid')
    }
    // The same mail twice in one question, as two clicks make it.
    const twice = await a.decisions.answerDecide({ asks: [ask, { ...ask, by: 'ruiz' }] })
    expect(twice.value).toMatchObject({
      answers: [{ copies: [{ place: 0 }] }, { refusal: { code: 'conflict' } }],
    })
    expect(a.sent).toEqual([`${id} 0`])
  })

  test('that dies between claim and queue sends it once when it starts again', async () => {
    const { wires, a, b } = two()
    const id = await a.hold()
    wires.exchange()
    a.queue = 'hangs'
    void b.held.release(NAGY, id).catch(() => {})
    await settled()
    wires.exchange()
    expect(b.held.heldOne(id).claims).toHaveLength(2)
    expect(b.quarantine.pendingReleases()).toEqual([])
    a.stop()
    expect(a.sent).toEqual([])
    await a.start()
    await settled()
    wires.exchange()
    expect(a.sent).toEqual([`${id} 0`, `${id} 1`])
    expect(a.quarantine.pendingReleases()).toEqual([])
    expect(b.quarantine.pendingReleases()).toEqual([])
    expect((await refusal(() => b.held.release(RUIZ, id))).message).toContain('released by nagy')
  })

  test('that is gone for good: its mail can be deleted, and a release says why not', async () => {
    const { wires, a, b } = two()
    const id = await a.hold()
    wires.exchange()
    a.isDown = true
    await b.held.release(NAGY, id, 'r0@example.com')
    wires.remove(a)
    for (const act of [
      () => b.held.release(RUIZ, id),
      () => b.held.heldSource(id),
      () => b.held.heldPreview(id),
    ]) {
      const error = await refusal(act)
      expect(error.code).toBe('unavailable')
      expect(error.message).toBe(
        'The content of this mail was only on mx1, which was removed from the cluster.',
      )
    }
    const half = await b.held.deleteHeld(RUIZ, id, 'r1@example.com')
    expect(half.row).toMatchObject({ recipients: ['r0@example.com'], owner: b.node })
    expect(b.rows.owned('held', id)?.version[0]).toBe(2)
    expect(b.quarantine.countOf(a.node.id)).toBe(0)
    // The click was for the other node. The new owner has no body: it neither runs nor takes it.
    expect(half.row.pending).toMatchObject([{ kind: 'release', to: a.node }])
    expect(b.quarantine.asked()).toEqual([])
    expect((await refusal(() => b.held.release(RUIZ, id))).code).toBe('notFound')
    expect(b.held.heldOne(id).claims).toHaveLength(1)
    await b.held.deleteHeld(RUIZ, id)
    expect(b.held.heldOne(id).row).toMatchObject({ recipients: [], pending: [] })
    // What is left of it goes its way.
    b.clock.setWall(9 * DAY_MS)
    b.rows.collect(null, 100)
    expect(b.quarantine.one(id)).toBeNull()
  })

  test('forgets what is decided when its body is gone, and so does everybody', async () => {
    const { wires, a, b } = two()
    const id = await a.hold()
    const kept = await a.hold()
    wires.exchange()
    await b.held.deleteHeld(NAGY, id)
    expect(a.rows.owned('held', id)?.untilMs).toBeNull()
    await a.bodies.remove(id)
    a.quarantine.markBodyGone(id)
    wires.exchange()
    expect(b.quarantine.one(id)?.bodyGone).toBe(true)
    expect((await refusal(() => b.held.heldSource(id))).code).toBe('notFound')
    for (const one of [a, b]) {
      one.clock.setWall(4.5 * DAY_MS)
      one.rows.collect(null, 100)
      expect(one.quarantine.one(id) === null).toBe(one === b)
    }
    a.rows.collect(null, 100)
    wires.exchange()
    for (const one of [a, b]) {
      expect(one.quarantine.one(id)).toBeNull()
      expect(one.held.held(ANY).rows.map((row) => row.id)).toEqual([kept])
    }
  })

  test('that misses a file says so, releases nothing of it, and has it again with its disk', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1)
    wires.exchange()
    a.stop()
    const file = a.bodies.kept.get(id)
    a.bodies.kept.delete(id)
    await a.start()
    wires.exchange()
    for (const one of [a, b]) {
      expect(one.quarantine.one(id)?.bodyGone).toBe(true)
      const error = await refusal(() => one.held.release(NAGY, id))
      expect(error.message).toBe('The content of this mail is missing on the disk of its node.')
      expect(one.held.heldOne(id).claims).toEqual([])
    }
    a.stop()
    if (file !== undefined) a.bodies.kept.set(id, file)
    await a.start()
    wires.exchange()
    await b.held.release(NAGY, id)
    expect(a.sent).toEqual([`${id} 0`])
  })

  test('alone expires, removes and rebuilds', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1)
    wires.exchange()
    const overMs = a.clock.wallMs() + 31 * DAY_MS
    expect(b.quarantine.expired(overMs, 10)).toEqual([])
    expect(a.quarantine.expired(overMs, 10)).toEqual([id])
    await b.held.deleteHeld(NAGY, id)
    wires.exchange()
    expect(b.quarantine.removable(overMs, 10)).toEqual([])
    expect(a.quarantine.removable(overMs, 10)).toEqual([id])
    expect((await b.quarantine.rebuild(b.bodies)).added).toBe(0)
    expect(b.quarantine.one(id)?.bodyGone).toBe(false)
    expect(() => b.quarantine.claim(id, null, { kind: 'expire', by: 'postern', atMs: 1 })).toThrow(
      'only its owner',
    )
  })
})

describe('a message of ten thousand recipients', () => {
  test('travels in rows that a link carries, and is decided copy by copy', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(10_000)
    for (const { state } of a.rows.list('held')) {
      expect(state.shape === 'owned' && (state.value?.length ?? 0)).toBeLessThan(200_000)
    }
    wires.exchange()
    expect(b.held.heldOne(id).row.recipients).toHaveLength(10_000)
    await b.held.release(NAGY, id, 'r9999@example.com')
    wires.exchange()
    expect(b.held.heldOne(id).row.recipients).toHaveLength(9_999)
    expect(b.quarantine.search(parseQuery('to:r9999@', 0), ANY).total).toBe(0)
    expect(b.quarantine.search(parseQuery('to:r9998@', 0), ANY).total).toBe(1)
    await b.held.deleteHeld(NAGY, id)
    wires.exchange()
    expect(b.quarantine.count()).toBe(0)
    expect(b.shown()).toBe(a.shown())
    expect(a.sent).toEqual([`${id} 9999`])
  })
})

describe('the page of a mail', () => {
  test('says where it came in, and in whose queue it waits', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1)
    a.trace.record(
      [
        {
          id,
          atMs: a.clock.wallMs(),
          clientIp: '192.0.2.1',
          sender: 'a@sender.example',
          recipient: 'r0@example.com',
          subject: 'Held subject',
          sizeBytes: 4_000,
          score: 10,
          rules: ['GTUBE'],
          accept: 'held',
          acceptReply: '250 ok',
          delivery: 'held',
          deliveryReply: null,
          deliveryMs: null,
        },
      ],
      [],
      null,
    )
    const mail = { queueOne: () => null, copyOne: () => null } as unknown as MailActions
    const queuePeers: QueuePeers = {
      ask: () => Promise.reject(away()),
      fetch: () => Promise.reject(away()),
      others: () => [{ ...a.node, answers: false }],
      gone: () => [],
      nameOf: () => a.node,
      describe: () => 'has not answered since 12:00',
    }
    const pages = [a, b].map((one) => messagesPart({ ...one, mail, queuePeers }))
    const shown = () => Promise.all(pages.map((page) => page.message(id)))
    const share = () => {
      wires.exchange()
      a.trace.flush()
      const { rows } = a.trace.feed.read(0, new Map(), 1e6)
      b.trace.feed.apply({
        peer: a.node.id,
        rows: carried(rows) as typeof rows,
        as: { kind: 'repair' },
      })
    }
    share()
    expect((await shown()).map(({ rows, queuedOn }) => [rows[0]?.node.name, queuedOn])).toEqual([
      ['mx1', null],
      ['mx1', null],
    ])
    await b.held.release(NAGY, id)
    share()
    expect((await shown()).map(({ rows, queuedOn }) => [rows[0]?.delivery, queuedOn])).toEqual([
      ['released', null],
      ['released', a.node],
    ])
    const queue = queuePart({
      ...b,
      operators: { audit: () => {} },
      mail,
      queuePeers,
    })
    const elsewhere = 'This mail waits with mx1, which has not answered since 12:00.'
    expect(queue.retry(NAGY, id)).rejects.toThrow(elsewhere)
    expect(queue.drop(NAGY, id, false)).rejects.toThrow(elsewhere)
    expect((await shown())[1]?.events.map(({ what }) => what)).toEqual([
      'received',
      'held',
      'released',
    ])
    a.trace.outcome(id, 0, 'delivered', '250 ok', null)
    share()
    expect((await shown()).map(({ queuedOn }) => queuedOn)).toEqual([null, null])
  })
})

describe('rows of a peer that are none', () => {
  test('are kept and not shown', async () => {
    const { wires, a, b } = two()
    const id = await a.hold(1)
    const bad = ['x', '{}', '{"owner":"x","copies":[]}', '{"owner":"00","copies":[{}]}', '[]']
    for (const [index, value] of bad.entries()) {
      a.rows.put('held', a.ids.next(), [1, 1], value, 'x', null)
      a.rows.put('held', `nonsense ${index}`, [1, 1], value, 'x', null)
      a.rows.put('pending', `${id}/${index}/x`, [1, 1], value, 'x', null)
    }
    wires.exchange()
    expect(b.held.held(ANY).rows.map((row) => row.id)).toEqual([id])
    expect(b.held.heldOne(id).row.pending).toEqual([])
    expect(b.rows.list('held')).toHaveLength(11)
  })
})
