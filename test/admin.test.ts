/** What a person or a script may ask or change: who may, what is refused, and in which order. */
import { afterEach, describe, expect, test } from 'bun:test'
import { readdirSync, readlinkSync } from 'node:fs'
import { createAdmin, type NodeAdmin } from '../src/admin/admin.ts'
import type { Admin, Author } from '../src/admin/contract.ts'
import { HeldHolders } from '../src/admin/held-holders.ts'
import type { MailActions } from '../src/admin/mail-actions.ts'
import { StoreError } from '../src/base/errors.ts'
import type { MessageId } from '../src/base/ids.ts'
import { type NodeId, newNodeId } from '../src/base/ids.ts'
import { SeededRandom } from '../src/base/random.ts'
import { Cluster } from '../src/cluster/cluster.ts'
import type { Network } from '../src/cluster/contract.ts'
import { clusterIdOf, publicKeys } from '../src/cluster/identity.ts'
import { newKeys } from '../src/cluster/keys.ts'
import { patienceOf } from '../src/cluster/patience.ts'
import { SETTINGS } from '../src/config/schema.ts'
import { sampleOf } from '../src/mail/inspect/sample.ts'
import type { HeldNodes } from '../src/mail/quarantine/nodes.ts'
import type { Body } from '../src/message/body.ts'
import type { Claim, Judgement, QueueRow } from '../src/message/rows.ts'
import { NO_INSIGHT } from '../src/message/verdict.ts'
import { IssuedTokens } from '../src/store/invitations.ts'
import { carry } from './exchange.ts'
import { Room, refused as refusal } from './rooms.ts'

const ADMIN: Author = { name: 'ruiz', role: 'admin' }
const VIEWER: Author = { name: 'nagy', role: 'viewer' }

/** The queue as a list of what it was asked. */
class Asked implements MailActions {
  inspectAgain: MailActions['inspectAgain'] = () => Promise.reject(new Error('nobody asks'))
  readonly calls: string[] = []
  readonly rows: QueueRow[] = []
  refuses = false
  /** Runs while a release is on its way. */
  onRelease: () => Promise<void> | void = () => {}

  async release(id: MessageId, places: readonly number[], claim: Claim): Promise<void> {
    this.calls.push(`release ${id} ${places.join(',')} ${claim.by}`)
    await this.onRelease()
    if (this.refuses) throw new StoreError('No space left', { remedy: 'retry' })
  }
  queueRows({ limit }: { readonly limit: number }) {
    return { rows: this.rows.slice(0, limit), total: this.rows.length, cursor: null }
  }
  queueOne(id: MessageId): QueueRow | null {
    return this.rows.find((row) => row.id === id) ?? null
  }
  copiesOf(): number {
    return 0
  }
  copyOne(): QueueRow | null {
    return null
  }
  hasReleased(): boolean {
    return false
  }
  releasesResumed(): void {}
  retry(id: MessageId | null): number {
    this.calls.push(`retry ${id}`)
    return id === null ? this.rows.length : 1
  }
  async drop(id: MessageId, bounce: boolean): Promise<boolean> {
    this.calls.push(`drop ${id} ${bounce}`)
    return true
  }
  queueTotals() {
    return { messages: this.rows.length, oldestMs: null, inDoubt: 0 }
  }
}

type House = {
  readonly room: Room
  readonly mail: Asked
  readonly admin: NodeAdmin
  readonly previewed: Body[]
  readonly cluster: Cluster
}

const houses: House[] = []

/** Nobody is reached: a node without peers. */
const NOWHERE: Network = {
  listen: async () => ({ port: 25_001, close: () => {} }),
  dial: () => Promise.reject(new Error('unreachable')),
  datagrams: async () => ({ port: 25_001, send: () => {}, close: () => {} }),
}

function alone(room: Room): Promise<Cluster> {
  const { clock, random, observer, node, rows, trace, databases } = room
  const keys = newKeys(random)
  const listen = { host: '127.0.0.1', port: 0 }
  const report = {
    ready: true,
    queue: 0,
    held: 0,
    diskFreeBytes: 1,
    diskTotalBytes: 2,
    takesCopies: true,
    copies: 0,
    alone: 0,
    inDoubt: 0,
    troubles: [],
  }
  return Cluster.start(
    {
      self: { node: node.id, keys, instance: rows.writer, epoch: 1, version: '0.1.0' },
      clusterId: clusterIdOf(node.id, publicKeys(keys)),
      name: node.name,
      listen,
      advertise: [listen],
      smtp: '127.0.0.1:25',
      web: 'https://127.0.0.1:8443',
      features: [],
      state: rows,
      trace: trace.feed,
      issued: new IssuedTokens(databases.state),
      report: () => report,
      awaits: false,
      parallelCrypto: false,
      onJump: () => {},
    },
    { clock, random, observer, network: NOWHERE },
  )
}

/** Without others. */
const NO_NODES: HeldNodes = {
  ask: () => Promise.resolve(null),
  fetch: () => Promise.resolve({ value: null, bytes: (async function* () {})() }),
  absence: () => ({ standing: 'here', refusedSinceMs: null, lastContactMs: null }),
  staying: () => [],
  candidates: () => [],
  ranked: (_, nodes) => nodes,
  hasReadAll: () => true,
  taken: () => Promise.resolve(),
}

async function house(): Promise<House> {
  const room = new Room()
  const mail = new Asked()
  const cluster = await alone(room)
  const patience = patienceOf(1)
  const heldNodes = { ...NO_NODES, describe: () => '' }
  const holders = new HeldHolders({ ...room, nodes: heldNodes, patience })
  const decisions = holders.decide({ ...room, mail })
  const previewed: Body[] = []
  const admin = createAdmin({
    ...room,
    mail,
    checkYara: async () => {},
    names: { query: async () => ({ status: 'absent' }) },
    secrets: { put: () => {}, get: () => null, remove: () => {}, names: () => [] },
    cluster,
    decisions,
    takeover: holders.takeover,
    heldNodes,
    patience,
    door: () => ({ url: 'https://127.0.0.1:8443', pin: null }),
    remains: () => {
      const held = room.quarantine.count()
      return { queue: mail.rows.length, held, copies: 0, owed: 0, why: null }
    },
    join: async () => {},
    inspectors: {
      health: () => ({ processes: 2, ready: 2, missing: ['landlock'], replaced: 0 }),
      sample: async (body) => sampleOf(body.kind === 'memory' ? body.bytes : Buffer.of()),
      preview: async (body) => {
        previewed.push(body)
        return {
          subject: 'x',
          from: null,
          to: null,
          date: null,
          headers: [],
          text: null,
          html: null,
          attachments: [],
          notes: [],
        }
      },
    },
    status: () => ({
      node: room.node.id,
      name: room.node.name,
      version: '0.1.0',
      ready: true,
      problems: [],
      webPin: null,
      startedMs: 1,
      smtp: '127.0.0.1:25',
      web: 'https://127.0.0.1:8443',
      disk: { freeBytes: 1, totalBytes: 2 },
    }),
    probe: async (hop) => ({ hop, ok: true, answer: '220 hello' }),
  })
  const built = { room, mail, admin, previewed, cluster }
  houses.push(built)
  return built
}

afterEach(() => {
  for (const { room, cluster } of houses.splice(0)) {
    cluster.stop()
    room.close()
    room.remove()
  }
})

async function holdOne(
  room: Room,
  places: readonly number[] = [0, 1],
  text = 'Subject: x\r\n\r\nbody\r\n',
  judgement: Judgement | null = null,
) {
  const mail = room.held({}, places)
  const addresses = mail.envelope.recipients.map(({ address }) => address)
  room.trace.record(
    addresses.map((recipient) =>
      room.row({ id: mail.row.id, recipient, accept: 'held', delivery: 'held' }),
    ),
    [],
    judgement,
  )
  await room.bodies.write(mail, { kind: 'memory', bytes: Buffer.from(text) })
  room.quarantine.add(mail)
  return mail.row.id
}

function pathOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`)
  } catch {
    return ''
  }
}

function queueRow(id: MessageId): QueueRow {
  return {
    id,
    owner: { id: '00000000000000aa' as NodeId, name: 'mx1' },
    term: 1,
    holders: [],
    waits: null,
    sender: '',
    subject: null,
    sizeBytes: 1,
    acceptedMs: 1,
    expiresMs: 2,
    state: 'queued',
    recipients: [],
  }
}

describe('roles', () => {
  /** Everything that changes something, with input that an admin gets through with. */
  const acts: Readonly<Record<string, (house: House, author: Author, id: MessageId) => unknown>> = {
    addOperator: ({ admin }, author) =>
      admin.addOperator(author, 'newone', 'correct horse', 'admin'),
    removeOperator: ({ admin }, author) => admin.removeOperator(author, 'second'),
    'changePassword of another': ({ admin }, author) =>
      admin.changePassword(author, 'second', 'correct horse 2'),
    putDomain: ({ admin }, author) => admin.putDomain(author, 'a.example', {}),
    removeDomain: ({ admin }, author) => admin.removeDomain(author, 'there.example'),
    setSetting: ({ admin }, author) => admin.setSetting(author, 'policy.hold', 7),
    undoChange: ({ admin }, author) => admin.undoChange(author, admin.changes(1)[0]?.id ?? ''),
    keep: ({ admin }, author) => {
      const [conflict] = admin.conflicts()
      admin.keep(author, conflict?.key ?? '', conflict?.sides[0]?.id ?? '')
    },
    addListEntry: ({ admin }, author) =>
      admin.addListEntry(author, { list: 'block', kind: 'ip', value: '192.0.2.2' }),
    removeListEntry: ({ admin }, author) =>
      admin.removeListEntry(author, 'block', 'ip', '192.0.2.1'),
    addApiToken: ({ admin }, author) => admin.addApiToken(author, { name: 'x', role: 'admin' }),
    removeApiToken: ({ admin }, author) =>
      admin.removeApiToken(author, admin.apiTokens()[0]?.id ?? ''),
    release: ({ admin }, author, id) => admin.release(author, id),
    deleteHeld: ({ admin }, author, id) => admin.deleteHeld(author, id),
    learnHeld: ({ admin }, author, id) => admin.learnHeld(author, id, 'spam'),
    learnSource: ({ admin }, author) =>
      admin.learnSource(author, Buffer.from('Subject: a\r\n\r\nb\r\n'), 'ham', null),
    retry: ({ admin }, author) => admin.retry(author, null),
    drop: ({ admin }, author, id) => admin.drop(author, id, true),
  }

  test.each(Object.keys(acts))(
    '%s: an admin may, a viewer may not and changes nothing',
    async (name) => {
      const here = await house()
      const act = acts[name]
      await here.admin.addOperator(ADMIN, 'first', 'correct horse', 'admin')
      await here.admin.addOperator(ADMIN, 'second', 'correct horse', 'viewer')
      here.admin.addListEntry(ADMIN, { list: 'block', kind: 'ip', value: '192.0.2.1' })
      here.admin.addApiToken(ADMIN, { name: 'script', role: 'viewer' })
      const elsewhere = await house()
      here.admin.setSetting(ADMIN, 'mail.hops', 40)
      elsewhere.admin.setSetting(ADMIN, 'mail.hops', 41)
      carry(elsewhere.room, here.room)
      here.admin.putDomain(ADMIN, 'there.example', {})
      const id = await holdOne(here.room)
      here.mail.rows.push(queueRow(id))
      here.mail.calls.length = 0
      const before = here.admin.changes(100)
      const error = await refusal(() => act?.(here, VIEWER, id))
      expect(error.code).toBe('forbidden')
      expect(error.advice).toContain('admin')
      expect(here.mail.calls).toEqual([])
      expect(here.admin.changes(100)).toEqual(before)
      expect(here.admin.heldOne(id).claims).toEqual([])
      await act?.(here, ADMIN, id)
    },
  )

  test('everybody may change their own password', async () => {
    const { admin } = await house()
    await admin.addOperator(ADMIN, 'first', 'correct horse', 'admin')
    await admin.addOperator(ADMIN, VIEWER.name, 'correct horse', 'viewer')
    await admin.changePassword(VIEWER, VIEWER.name, 'battery staple')
    expect((await admin.login(VIEWER.name, 'battery staple', '192.0.2.1')).author).toEqual(VIEWER)
  })
})

describe('learning', () => {
  const SOURCE = Buffer.from('From: a@sender.example\r\nSubject: Offer\r\n\r\nBuy this.\r\n')

  test('what is learnt as spam tells who got a file of it already, and only then', async () => {
    const { admin, room } = await house()
    const judged = (sha256: string): Judgement => ({
      verdict: 'hold',
      score: 9,
      findings: [],
      unknowns: [],
      holdFrom: 8,
      rejectFrom: 15,
      insight: {
        ...NO_INSIGHT,
        urls: ['https://shared.example/', 'https://evil.example/a?b="c",d'],
        files: [{ path: 'a.zip', type: 'zip', sizeBytes: 1, sha256 }],
      },
    })
    const [file, other] = ['ab'.repeat(32), 'cd'.repeat(32)]
    const id = await holdOne(room, [0, 1], undefined, judged(file))
    const lone = await holdOne(room, [0, 1], undefined, judged(other))
    for (const insight of [judged(file), { ...judged('ef'.repeat(32)), insight: NO_INSIGHT }]) {
      const row = room.row({ accept: 'accepted', delivery: 'delivered' })
      room.trace.record([row, { ...row, recipient: 'c@example.com' }], [], {
        ...insight,
        ...(insight.insight === NO_INSIGHT
          ? {}
          : { insight: { ...NO_INSIGHT, files: insight.insight?.files ?? [] } }),
      })
    }
    expect((await admin.learnHeld(ADMIN, id, 'ham')).flip).toBeNull()
    const { flip } = await admin.learnHeld(ADMIN, id, 'spam')
    expect(flip?.recipients).toBe(2)
    expect(admin.search({ text: flip?.query ?? '', limit: 10, cursor: null }).total).toBe(2)
    expect((await admin.learnHeld(ADMIN, lone, 'spam')).flip).toBeNull()
    expect(room.observer.count('verdict_flips_total')).toBe(2)
  })

  test('a held mail is learnt, learnt otherwise, and forgotten; each is in the audit once', async () => {
    const { admin, room } = await house()
    const id = await holdOne(room)
    const spam = await admin.learnHeld(ADMIN, id, 'spam')
    expect(spam).toMatchObject({ label: 'spam', before: null, spam: 1, ham: 0 })
    await admin.learnHeld(ADMIN, id, 'spam')
    expect(await admin.learnHeld(ADMIN, id, 'ham')).toMatchObject({
      before: 'spam',
      spam: 0,
      ham: 1,
    })
    expect(admin.learning()).toEqual({ spam: 0, ham: 1, minimum: 200 })
    expect(await admin.learnHeld(ADMIN, id, 'forget')).toMatchObject({
      label: null,
      spam: 0,
      ham: 0,
    })
    const acts = room.audit.newest(10).map(({ act, subject }) => `${act} ${subject}`)
    expect(acts).toEqual(['forget', 'ham', 'spam'].map((as) => `learn.${as} ${spam.fingerprint}`))
  })

  test('a source is learnt for the domain that is named', async () => {
    const { admin, room } = await house()
    const { subject } = await admin.learnSource(ADMIN, SOURCE, 'spam', 'Example.COM')
    expect(subject).toBe('Offer')
    const [row] = room.rows.list('sample')
    const value = row?.state.shape === 'cell' ? row.state.heads[0]?.value : null
    expect(JSON.parse(value ?? '')).toMatchObject({ label: 'spam', domain: 'example.com' })
  })

  test.each([
    ['a label that is none', SOURCE, 'junk', 'as'],
    ['an empty mail', Buffer.of(), 'spam', 'source'],
  ] as const)('%s is refused, and nothing is learnt', async (_, bytes, as, field) => {
    const { admin } = await house()
    const error = await refusal(() => admin.learnSource(ADMIN, bytes, as, null))
    expect([error.code, error.field]).toEqual(['invalid', field])
    expect(admin.learning()).toMatchObject({ spam: 0, ham: 0 })
  })
})

describe('access', () => {
  test('goes from the code over the set-up to a session that ends', async () => {
    const { admin, room } = await house()
    expect(admin.needsSetup()).toBe(true)
    const code = room.operators.setupCode ?? ''
    expect(admin.setupCodeMatches('wrong', '192.0.2.1')).toBe(false)
    expect(admin.setupCodeMatches(code, '192.0.2.1')).toBe(true)
    await admin.setup({ code, name: 'ruiz', password: 'correct horse', clientIp: '192.0.2.1' })
    expect(admin.needsSetup()).toBe(false)
    const { session, author } = await admin.login('ruiz', 'correct horse', '192.0.2.1')
    expect(author).toEqual(ADMIN)
    expect(admin.authenticate(session)).toEqual(ADMIN)
    admin.logout(session)
    expect(admin.authenticate(session)).toBeNull()
    expect(admin.operators()).toEqual([
      {
        name: 'ruiz',
        role: 'admin',
        addedMs: room.clock.wallMs(),
        lastSeenMs: room.clock.wallMs(),
      },
    ])
  })

  test('wrong set-up codes lock like wrong passwords', async () => {
    const { admin, room } = await house()
    for (let count = 0; count < 5; count++)
      expect(admin.setupCodeMatches('wrong', '192.0.2.1')).toBe(false)
    const error = await refusal(() =>
      admin.setupCodeMatches(room.operators.setupCode ?? '', '192.0.2.1'),
    )
    expect(error.code).toBe('locked')
    room.clock.advance(30_000)
    expect(admin.setupCodeMatches(room.operators.setupCode ?? '', '192.0.2.1')).toBe(true)
  })
})

describe('domains and settings', () => {
  test('a domain is added, changed field by field, and removed', async () => {
    const { admin, room } = await house()
    const added = admin.putDomain(ADMIN, 'Example.COM.', {
      nextHops: ['mail.example:26'],
      recipients: ['Ann'],
    })
    expect(added).toEqual({
      name: 'example.com',
      nextHops: [{ protocol: 'smtp', host: 'mail.example', port: 26 }],
      recipients: ['ann'],
      hold: null,
      reject: null,
      enforce: null,
    })
    admin.putDomain(ADMIN, 'example.com', { hold: 5 })
    admin.putDomain(ADMIN, 'example.com', { nextHops: ['lmtp://[::1]:24'], recipients: null })
    expect(admin.domains()).toEqual([
      {
        name: 'example.com',
        nextHops: [{ protocol: 'lmtp', host: '::1', port: 24 }],
        recipients: null,
        hold: 5,
        reject: null,
        enforce: null,
      },
    ])
    expect(room.live.current.domains.get('example.com')?.hold).toBe(5)
    admin.removeDomain(ADMIN, 'EXAMPLE.com')
    expect(admin.domains()).toEqual([])
  })

  test.each([
    ['a b', {}, 'name', 'invalid'],
    ['a.example', { nextHops: ['http://x'] }, 'nextHops', 'invalid'],
    ['a.example', { recipients: ['a@b.example'] }, 'recipients', 'invalid'],
    ['a.example', { hold: 0 }, 'hold', 'invalid'],
    ['a.example', { reject: 8 }, 'reject', 'invalid'],
  ] as const)(
    'putDomain %p %j is refused by the field %s and changes nothing',
    async (name, input, field, code) => {
      const { admin, mail } = await house()
      const error = await refusal(() => admin.putDomain(ADMIN, name, input))
      expect([error.field, error.code]).toEqual([field, code])
      expect(admin.domains()).toEqual([])
      expect(admin.changes(10)).toEqual([])
      expect(mail.calls).toEqual([])
    },
  )

  test('a next hop is tried as it will be used, and a wrong one is refused', async () => {
    const { admin } = await house()
    expect((await admin.probeNextHop(' Mail.Example ')).hop).toBe('smtp://mail.example:25')
    expect((await refusal(() => admin.probeNextHop('x y'))).field).toBe('nextHops')
  })

  test('settings say what is in force, what they were at first, and who changed them', async () => {
    const { admin, room } = await house()
    expect(admin.settings().map(({ key }) => key)).toEqual(Object.keys(SETTINGS))
    const row = admin.setSetting(ADMIN, 'policy.hold', '7.5')
    expect(row).toEqual({
      key: 'policy.hold',
      value: 7.5,
      initial: 8,
      changedBy: 'ruiz',
      changedMs: room.clock.wallMs(),
    })
    expect(admin.setting('policy.hold')).toEqual(row)
    expect(admin.settings().find(({ key }) => key === 'policy.hold')).toEqual(row)
    const [change] = admin.changes(10)
    expect(change).toEqual({
      id: expect.stringMatching(/^[0-9a-z]{11}-[0-9a-f]{12}$/),
      atMs: room.clock.wallMs(),
      by: 'ruiz',
      key: 'setting/policy.hold',
      before: null,
      after: '7.5',
    })
    admin.undoChange(ADMIN, change?.id ?? '')
    expect(admin.setting('policy.hold')).toMatchObject({ value: 8, changedBy: null })
    expect((await refusal(() => admin.setting('policy.hodl'))).code).toBe('notFound')
    expect((await refusal(() => admin.setSetting(ADMIN, 'policy.hold', 'x'))).code).toBe('invalid')
  })

  test('what a form was made from goes with it: a stale one is refused with what stands', async () => {
    const { admin } = await house()
    const seen = admin.seenOf('setting/policy.hold')
    admin.setSetting({ name: 'nagy', role: 'admin' }, 'policy.hold', 7, seen)
    const error = await refusal(() => admin.setSetting(ADMIN, 'policy.hold', 6, seen))
    expect(error.code).toBe('conflict')
    expect(error.message).toContain('set to 7 by nagy')
    const shown = admin.seenOf('domain/a.example')
    admin.putDomain(ADMIN, 'a.example', { hold: 3, seen: shown })
    expect(
      (await refusal(() => admin.putDomain(ADMIN, 'a.example', { hold: 4, seen: shown }))).code,
    ).toBe('conflict')
  })
})

describe('held mail', () => {
  test('is released for all recipients with one call to the queue, and says who did it', async () => {
    const { admin, mail, room } = await house()
    const id = await holdOne(room)
    const detail = await admin.release(ADMIN, id.toUpperCase())
    expect(mail.calls).toEqual([`release ${id} 0,1 ruiz`])
    expect(detail.row.recipients).toEqual([])
    expect(detail.claims.map(({ kind, by, recipient }) => `${kind} ${by} ${recipient}`)).toEqual([
      'release ruiz b@example.com',
      'release ruiz c@example.com',
    ])
    expect(room.quarantine.pendingReleases()).toEqual([])
    expect(admin.held({ text: '', limit: 10, cursor: null }).rows).toEqual([])
    expect(admin.status().held).toBe(0)
    const { rows, events } = await admin.message(id)
    expect(rows.map(({ delivery, deliveryReply }) => [delivery, deliveryReply])).toEqual([
      ['released', 'by ruiz'],
      ['released', 'by ruiz'],
      ['held', null],
    ])
    expect(events.map(({ what, recipient }) => [what, recipient])).toEqual([
      ['received', null],
      ['held', 'b@example.com'],
      ['held', 'c@example.com'],
      ['held', 'd@example.com'],
      ['released', 'b@example.com'],
      ['released', 'c@example.com'],
    ])
  })

  test('is in the claims, durably, before the queue is asked, and marked only after it answered', async () => {
    const { admin, mail, room } = await house()
    const id = await holdOne(room)
    let during: unknown
    mail.onRelease = () => {
      during = room.quarantine.pendingReleases().map(({ places }) => places)
    }
    await admin.release(ADMIN, id)
    expect(during).toEqual([[0, 1]])
  })

  test('is released once, however many click at once', async () => {
    const { admin, mail, room } = await house()
    const id = await holdOne(room)
    let open = () => {}
    const gate = new Promise<void>((resolve) => {
      open = resolve
    })
    mail.onRelease = () => gate
    const clicks = [1, 2, 3, 4].map(() => admin.release(ADMIN, id))
    open()
    const ends = await Promise.allSettled(clicks)
    expect(ends.map(({ status }) => status)).toEqual([
      'fulfilled',
      'rejected',
      'rejected',
      'rejected',
    ])
    expect(mail.calls).toHaveLength(1)
    const error = await refusal(() => admin.release({ ...ADMIN, name: 'late' }, id))
    expect(error.code).toBe('conflict')
    expect(error.message).toMatch(/^The mail was already released by ruiz at \d{4}-.*Z\.$/)
    expect((await refusal(() => admin.deleteHeld(ADMIN, id))).message).toContain(
      'already released by ruiz',
    )
  })

  test('is released for one recipient, the others stay held', async () => {
    const { admin, mail, room } = await house()
    const id = await holdOne(room)
    const detail = await admin.release(ADMIN, id, 'C@example.com')
    expect(mail.calls).toEqual([`release ${id} 1 ruiz`])
    expect(detail.row.recipients).toEqual(['b@example.com'])
    expect((await refusal(() => admin.release(ADMIN, id, 'c@example.com'))).code).toBe('conflict')
    expect((await refusal(() => admin.release(ADMIN, id, 'd@example.com'))).field).toBe('recipient')
    await admin.deleteHeld({ ...ADMIN, name: 'second' }, id)
    expect(mail.calls).toHaveLength(1)
    expect(admin.heldOne(id).claims.map(({ kind, by }) => `${kind} ${by}`)).toEqual([
      'delete second',
      'release ruiz',
    ])
  })

  test('whose release the queue refused is said so, and goes with the next click', async () => {
    const { admin, mail, room } = await house()
    const id = await holdOne(room)
    mail.refuses = true
    const error = await refusal(() => admin.release(ADMIN, id))
    expect(error.code).toBe('unavailable')
    expect(room.quarantine.pendingReleases()).toHaveLength(1)
    expect((await refusal(() => admin.deleteHeld(ADMIN, id))).code).toBe('conflict')
    mail.refuses = false
    await admin.release({ ...ADMIN, name: 'second' }, id)
    expect(mail.calls).toEqual([`release ${id} 0,1 ruiz`, `release ${id} 0,1 ruiz`])
    expect(room.quarantine.pendingReleases()).toEqual([])
    expect((await refusal(() => admin.release(ADMIN, id))).code).toBe('conflict')
  })

  test('that was delivered in the same breath is not shown as released for ever', async () => {
    const { admin, mail, room } = await house()
    const id = await holdOne(room, [0])
    mail.onRelease = () => room.trace.outcome(id, 0, 'delivered', '250 ok', null)
    await admin.release(ADMIN, id)
    expect((await admin.message(id)).rows[0]?.delivery).toBe('delivered')
  })

  test('is deleted without a word to the queue, and its content stays for a while', async () => {
    const { admin, mail, room } = await house()
    const id = await holdOne(room)
    await admin.deleteHeld(ADMIN, id)
    expect(mail.calls).toEqual([])
    expect(room.observer.count('mail_deleted_total')).toBe(2)
    expect((await admin.heldSource(id)).sizeBytes).toBeGreaterThan(0)
    expect((await refusal(() => admin.release(ADMIN, id))).message).toContain(
      'already deleted by ruiz',
    )
  })

  test('expired is said to have expired', async () => {
    const { admin, room } = await house()
    const id = await holdOne(room)
    room.quarantine.claim(id, null, { kind: 'expire', by: 'postern', atMs: 1 })
    expect((await refusal(() => admin.release(ADMIN, id))).message).toStartWith(
      'The mail was already expired at',
    )
  })

  test('is shown and downloaded as it was received', async () => {
    const { admin, room, previewed } = await house()
    const text = `Subject: x\r\n\r\n${'long line '.repeat(60_000)}\r\n`
    const id = await holdOne(room, [0], text)
    const { stream, sizeBytes } = await admin.heldSource(id)
    const bytes = Buffer.from(await new Response(stream).arrayBuffer())
    expect(bytes.equals(Buffer.from(text))).toBe(true)
    expect(sizeBytes).toBe(bytes.length)
    expect((await admin.heldPreview(id)).subject).toBe('x')
    const [body] = previewed
    expect(body?.kind === 'memory' && Buffer.from(body.bytes).equals(Buffer.from(text))).toBe(true)
    const openFiles = () =>
      readdirSync('/proc/self/fd').filter((fd) => pathOf(fd).endsWith(`/${id}`)).length
    const cut = (await admin.heldSource(id)).stream.getReader()
    expect((await cut.read()).value?.length).toBeGreaterThan(0)
    expect(openFiles()).toBe(1)
    await cut.cancel()
    expect(openFiles()).toBe(0)
  })

  test('whose content is gone keeps its page and says so', async () => {
    const { admin, room } = await house()
    const id = await holdOne(room)
    await admin.deleteHeld(ADMIN, id)
    await room.bodies.remove(id)
    room.quarantine.markBodyGone(id)
    expect((await refusal(() => admin.heldSource(id))).code).toBe('notFound')
    expect((await refusal(() => admin.heldPreview(id))).code).toBe('notFound')
    expect(admin.heldOne(id).claims).toHaveLength(2)
  })

  test('is searched with mistakes named and the rest applied', async () => {
    const { admin, room } = await house()
    await holdOne(room)
    const found = admin.held({ text: 'is:delivered rule:GTUBE', limit: 10, cursor: null })
    expect(found.rows).toHaveLength(1)
    expect(found.words).toBe('mails with the rule “GTUBE”')
    expect(found.mistakes).toHaveLength(1)
  })
})

describe('what is not there', () => {
  const unknown = '01m81j18g070zzzyg004000001'
  const asks: readonly [string, (admin: Admin, id: string) => unknown][] = [
    ['message', (admin, id) => admin.message(id)],
    ['heldOne', (admin, id) => admin.heldOne(id)],
    ['heldPreview', (admin, id) => admin.heldPreview(id)],
    ['heldSource', (admin, id) => admin.heldSource(id)],
    ['release', (admin, id) => admin.release(ADMIN, id)],
    ['release for one', (admin, id) => admin.release(ADMIN, id, 'x@y.example')],
    ['deleteHeld', (admin, id) => admin.deleteHeld(ADMIN, id)],
    ['retry', (admin, id) => admin.retry(ADMIN, id)],
    ['drop', (admin, id) => admin.drop(ADMIN, id, false)],
  ]
  test.each(asks)('%s of an unknown id is not found', async (_, ask) => {
    const { admin, mail } = await house()
    for (const id of [unknown, '', '../../etc/passwd', 'x'.repeat(10_000), "' OR 1=1 --"]) {
      const error = await refusal(() => ask(admin, id))
      expect(error.code).toBe('notFound')
      expect(error.field).toBe('id')
      expect(error.message.length).toBeLessThan(100)
    }
    expect(mail.calls).toEqual([])
  })

  test('a name that several nodes have finds none of them, and says so', async () => {
    const { admin, cluster } = await house()
    const twins = [0, 1].map((at) => {
      const random = new SeededRandom(90 + at)
      const keys = publicKeys(newKeys(random))
      const node = newNodeId(random)
      const peer = [{ host: '192.0.2.1', port: 7946 }]
      const facts = { name: 'twin', peer, smtp: '', web: '', version: '1', features: [] }
      cluster.roster.admit({ node, ...keys, ...facts }, 'ann')
      return node
    })
    const error = await refusal(() => admin.removeNode(ADMIN, 'twin'))
    expect(error.message).toBe('2 nodes have the name "twin".')
    for (const node of twins) expect(error.advice).toContain(node)
    expect((await admin.removeNode(ADMIN, twins[0] ?? '')).name).toBe('twin')
    expect((await admin.removeNode(ADMIN, 'twin')).node).toBe(twins[1] ?? '')
  })

  test('a node that has left changes nothing of the cluster any more', async () => {
    const { admin, cluster, room } = await house()
    cluster.roster.markLeft(room.node.id, 'ann')
    for (const ask of [
      () => admin.invite(ADMIN, {}),
      () => admin.drain(ADMIN, null),
      () => admin.removeNode(ADMIN, room.node.id),
      () => admin.leave(ADMIN, true),
    ]) {
      expect((await refusal(ask)).message).toBe('mx1 has left the cluster.')
    }
  })

  test('a node does not leave while nobody would hear of it', async () => {
    const { admin, cluster, room } = await house()
    const random = new SeededRandom(92)
    const node = newNodeId(random)
    const peer = [{ host: '192.0.2.1', port: 7946 }]
    const facts = { name: 'mx2', peer, smtp: '', web: '', version: '1', features: [] }
    cluster.roster.admit({ node, ...publicKeys(newKeys(random)), ...facts }, 'ann')
    const error = await refusal(() => admin.leave(ADMIN, true))
    expect([error.code, error.message]).toEqual([
      'unavailable',
      'No other node answers, so none would hear that this one leaves.',
    ])
    expect(error.advice).toContain('postern remove mx1')
    expect(cluster.roster.get(room.node.id)?.standing ?? 'member').toBe('member')
  })

  test('a domain, a setting, an operator and a change are not found by name', async () => {
    const { admin } = await house()
    const all = [
      () => admin.removeDomain(ADMIN, 'a.example'),
      () => admin.setting('no.such'),
      () => admin.removeOperator(ADMIN, 'nobody'),
      () => admin.changePassword(ADMIN, 'nobody', 'correct horse'),
      () => admin.undoChange(ADMIN, '17'),
      () => admin.removeApiToken(ADMIN, '17'),
      () => admin.removeListEntry(ADMIN, 'block', 'ip', '192.0.2.1'),
      () => admin.keep(ADMIN, 'setting/policy.hold', '17'),
    ]
    for (const ask of all) expect((await refusal(ask)).code).toBe('notFound')
  })
})

describe('queue, messages and status', () => {
  test('retry and drop reach the queue', async () => {
    const { admin, mail, room } = await house()
    const id = room.ids.next()
    mail.rows.push(queueRow(id))
    expect((await admin.queue({ limit: 0, cursor: null })).rows).toHaveLength(1)
    expect(await admin.retry(ADMIN, null)).toEqual({ retried: 1, silent: [] })
    expect((await admin.retry(ADMIN, ` ${id.toUpperCase()} `)).retried).toBe(1)
    await admin.drop(ADMIN, id, true)
    expect(mail.calls).toEqual(['retry null', `retry ${id}`, `drop ${id} true`])
    expect(room.operators.audited(1)[0]).toMatchObject({
      author: 'ruiz',
      act: 'queue.drop',
      subject: id,
    })
  })

  test('a message that is only in the queue has a page', async () => {
    const { admin, mail, room } = await house()
    const id = room.ids.next()
    mail.rows.push(queueRow(id))
    expect(await admin.message(id)).toMatchObject({
      rows: [],
      events: [],
      judgement: null,
      held: null,
      queue: { id },
    })
  })

  test('search gives rows, the query in words and its mistakes', async () => {
    const { admin, room } = await house()
    room.trace.record([room.row({ subject: 'Invoice' })], [], null)
    const found = admin.search({ text: 'invoice is:green', limit: 10, cursor: null })
    expect(found.rows).toHaveLength(1)
    expect(found.words).toBe('mails with “invoice”')
    expect(found.mistakes).toHaveLength(1)
    expect(admin.overview(room.clock.wallMs() - 1_000, 4).series).toHaveLength(4)
  })

  test('the status is put together from all parts', async () => {
    const { admin, mail, room } = await house()
    mail.rows.push(queueRow(room.ids.next()))
    await holdOne(room)
    room.observer.emit('queue.doubted')
    expect(admin.status()).toMatchObject({
      node: room.node.id,
      ready: true,
      queue: { messages: 1, oldestMs: null },
      held: 1,
      inspectors: { processes: 2, ready: 2, missing: ['landlock'] },
      possibleDuplicates: 1,
      nodes: [{ id: room.node.id, name: 'mx1', state: 'alive', lagMs: 0 }],
    })
    expect(admin.metrics()).toContain('postern_possible_duplicates_total 1')
  })
})
