/** An Admin without a node: invented mail, all acts, the same refusals. For tests of the web. */

import type {
  Admin,
  Author,
  ChangeRow,
  HeldDetail,
  HeldWaits,
  Lesson,
  NodeStatus,
  QueuePage,
  QueueQuery,
  Retried,
  SearchQuery,
} from '../src/admin/contract.ts'
import type { Clock } from '../src/base/clock.ts'
import { RefusalError } from '../src/base/errors.ts'
import { type MessageId, MessageIds } from '../src/base/ids.ts'
import { isSettingKey, SETTINGS, type SettingValue } from '../src/config/schema.ts'
import type { Domain } from '../src/config/snapshot.ts'
import { readDomainName, readNextHops, readSetting, readThreshold } from '../src/config/validate.ts'
import type {
  Claim,
  HeldRow,
  HolderRow,
  Judgement,
  PendingClaim,
  QueueRow,
  TraceRow,
} from '../src/message/rows.ts'
import type { Finding, Insight } from '../src/message/verdict.ts'
import { FakeCluster, NODE, nodeId } from './web-fake-cluster.ts'

export type Mail = {
  readonly sender: string
  readonly recipients: readonly string[]
  readonly subject: string | null
  readonly from?: string
  readonly findings?: readonly Finding[]
  readonly insight?: Insight
  readonly unknown?: string
  readonly state:
    | 'held'
    | 'delivered'
    | 'rejected'
    | 'deferred'
    | 'bounced'
    | 'queued'
    | 'inDoubt'
    | 'refused'
  readonly reply?: string
  readonly text?: string
  readonly html?: string
  readonly headers?: readonly { readonly name: string; readonly value: string }[]
  readonly attachments?: readonly string[]
  readonly minutesAgo: number
  /** Name of the node that has it; this one when absent. */
  readonly on?: string
  /** Names of the others that have it; in front of `?`: perhaps. */
  readonly copies?: readonly string[]
  readonly term?: number
  /** Why it is not tried. */
  readonly waits?: string
  /** Its node may have released it in these last minutes; counts while that node is away. */
  readonly doubtMinutes?: number
}

export type FakeOptions = {
  readonly clock: Clock
  readonly mails: readonly Mail[]
  readonly domains?: readonly string[]
  readonly setup?: boolean
  readonly ready?: boolean
  /** Names of the nodes, this one first. */
  readonly nodes?: readonly string[]
}

export const PASSWORD = 'correct horse battery staple'
export const CODE = 'GATE-2026-CODE'

type Kept = {
  readonly id: MessageId
  readonly mail: Mail
  readonly atMs: number
  readonly claims: Map<string, Claim>
  dropped: boolean
}

export class FakeAdmin extends FakeCluster implements Admin {
  readonly kept: Kept[] = []
  broken = false
  readonly #ready: boolean
  readonly #ids: MessageIds
  readonly #domains = new Map<string, Domain>()
  readonly #settings = new Map<string, { value: SettingValue; by: string; atMs: number }>()
  readonly #sessions = new Map<string, Author>()
  readonly #operators = new Map<
    string,
    { password: string; role: 'admin' | 'viewer'; addedMs: number }
  >()
  readonly #changes: ChangeRow[] = []
  /** By mail: what waits for a node that is away. */
  readonly #pending = new Map<MessageId, readonly PendingClaim[]>()
  #wrong = 0
  #setup: boolean

  constructor({
    clock,
    mails,
    domains = ['example.com'],
    setup = false,
    ready = true,
    nodes = ['mx1', 'mx2', 'mx3'],
  }: FakeOptions) {
    super(clock, nodes)
    this.#setup = setup
    this.#ready = ready
    this.#ids = new MessageIds(NODE, 1, clock)
    for (const mail of mails.toReversed()) this.add(mail)
    const nextHops = readNextHops(['smtp://exchange.example.com:25'])
    for (const name of domains) {
      this.#domains.set(name, {
        name,
        nextHops,
        recipients: null,
        hold: null,
        reject: null,
        enforce: null,
      })
    }
    if (setup) return
    const addedMs = clock.wallMs() - 9 * 86_400_000
    this.#operators.set('a.ruiz', { password: PASSWORD, role: 'admin', addedMs })
    this.#operators.set('h.berg', { password: PASSWORD, role: 'viewer', addedMs })
  }

  add(mail: Mail): MessageId {
    const id = this.#ids.next()
    const atMs = this.clock.wallMs() - mail.minutesAgo * 60_000
    this.kept.unshift({ id, mail, atMs, claims: new Map(), dropped: false })
    return id
  }

  status(): NodeStatus {
    if (this.broken) throw new Error('the store is gone: /var/lib/postern')
    const waiting = this.#waiting()
    return {
      node: NODE,
      name: 'mx1',
      version: '0.1.0',
      ready: this.#ready,
      problems: this.#ready ? [] : ['The spool has less free space than its reserve.'],
      webPin: null,
      startedMs: this.clock.wallMs() - 14 * 3_600_000,
      smtp: '192.0.2.11:25',
      web: 'https://192.0.2.11:8443',
      queue: {
        messages: waiting.length,
        oldestMs: waiting.length === 0 ? null : Math.min(...waiting.map(({ atMs }) => atMs)),
      },
      held: this.#held().length,
      disk: { freeBytes: 71 * 1024 ** 3, totalBytes: 100 * 1024 ** 3 },
      inspectors: { processes: 2, ready: 2, missing: [] },
      possibleDuplicates: 0,
      nodes: this.nodes.map(({ id, name, state, lagMs }) => ({ id, name, state, lagMs })),
    }
  }

  metrics(): string {
    return '# HELP postern_mail_total Messages by verdict\npostern_mail_total 1\n'
  }

  needsSetup(): boolean {
    return this.#setup
  }

  setupCodeMatches(code: string): boolean {
    return this.#setup && code === CODE
  }

  async setup(input: { code: string; name: string; password: string }): Promise<void> {
    if (!this.#setup) throw new RefusalError('conflict', null, 'The set-up is closed.', 'Sign in.')
    if (input.code !== CODE)
      throw new RefusalError('forbidden', 'code', 'This is not the set-up code.', 'Copy it.')
    checkPassword(input.password)
    this.#setup = false
    this.#operators.set(input.name, {
      password: input.password,
      role: 'admin',
      addedMs: this.clock.wallMs(),
    })
  }

  async login(name: string, password: string): Promise<{ session: string; author: Author }> {
    if (this.#wrong >= 5) {
      throw new RefusalError(
        'locked',
        null,
        'Too many wrong passwords.',
        'Wait 5 min and try again.',
      )
    }
    const operator = this.#operators.get(name)
    if (operator === undefined || operator.password !== password) {
      this.#wrong += 1
      throw new RefusalError(
        'unauthenticated',
        null,
        'The name or the password is wrong.',
        'Try again.',
      )
    }
    this.#wrong = 0
    const session = Buffer.from(`${name}.${this.#sessions.size}.${this.clock.wallMs()}`).toString(
      'base64url',
    )
    const author: Author = { name, role: operator.role }
    this.#sessions.set(session, author)
    return { session, author }
  }

  authenticate(session: string): Author | null {
    return this.#sessions.get(session) ?? null
  }

  logout(session: string): void {
    this.#sessions.delete(session)
  }

  operators() {
    return [...this.#operators].map(([name, { role, addedMs }]) => ({
      name,
      role,
      addedMs,
      lastSeenMs: name === 'a.ruiz' ? this.clock.wallMs() : null,
    }))
  }

  async addOperator(author: Author, name: string, password: string, role: string): Promise<void> {
    this.act(author, `addOperator ${name}`)
    if (this.#operators.has(name))
      throw new RefusalError(
        'conflict',
        'name',
        `${name} is there already.`,
        'Choose another name.',
      )
    if (role !== 'admin' && role !== 'viewer')
      throw new RefusalError('invalid', 'role', `There is no role ${role}.`, 'Use admin or viewer.')
    checkPassword(password)
    this.#operators.set(name, { password, role, addedMs: this.clock.wallMs() })
  }

  removeOperator(author: Author, name: string): void {
    this.act(author, `removeOperator ${name}`)
    if (!this.#operators.delete(name))
      throw new RefusalError('notFound', 'name', `There is no operator ${name}.`, 'List them.')
  }

  async changePassword(author: Author, name: string, password: string): Promise<void> {
    if (author.name !== name) this.act(author, `changePassword ${name}`)
    const operator = this.#operators.get(name)
    if (operator === undefined)
      throw new RefusalError('notFound', 'name', `There is no operator ${name}.`, 'List them.')
    checkPassword(password)
    this.#operators.set(name, { ...operator, password })
    for (const [session, one] of this.#sessions)
      if (one.name === name) this.#sessions.delete(session)
  }

  domains(): readonly Domain[] {
    return [...this.#domains.values()]
  }

  putDomain(author: Author, rawName: string, input: Parameters<Admin['putDomain']>[2]): Domain {
    this.act(author, `putDomain ${rawName}`)
    const name = readDomainName(rawName)
    this.#notSince(`domain/${name}`, input.seen)
    const before = this.#domains.get(name)
    const domain: Domain = {
      name,
      nextHops:
        input.nextHops === undefined ? (before?.nextHops ?? []) : readNextHops(input.nextHops),
      recipients: input.recipients === undefined ? (before?.recipients ?? null) : input.recipients,
      hold: input.hold === undefined ? (before?.hold ?? null) : readThreshold('hold', input.hold),
      reject:
        input.reject === undefined
          ? (before?.reject ?? null)
          : readThreshold('reject', input.reject),
      enforce: input.enforce === undefined ? (before?.enforce ?? null) : input.enforce,
    }
    this.#domains.set(name, domain)
    this.#note(
      author,
      `domain/${name}`,
      before === undefined ? null : JSON.stringify(before),
      JSON.stringify(domain),
    )
    return domain
  }

  removeDomain(author: Author, name: string): void {
    this.act(author, `removeDomain ${name}`)
    if (!this.#domains.delete(name))
      throw new RefusalError('notFound', 'name', `There is no domain ${name}.`, 'List them.')
    this.#note(author, `domain/${name}`, '{}', null)
  }

  async probeNextHop(hop: string) {
    readNextHops([hop])
    if (hop.includes('silent'))
      return { hop, ok: false, answer: 'It refused the connection: ECONNREFUSED.' }
    return {
      hop,
      ok: true,
      answer: '220 exchange.example.com Microsoft ESMTP MAIL Service ready, TLS offered, 3 ms',
    }
  }

  settings() {
    return Object.keys(SETTINGS).map((key) => this.setting(key))
  }

  setting(key: string) {
    if (!isSettingKey(key))
      throw new RefusalError('notFound', key, `There is no setting ${key}.`, 'List them.')
    const set = this.#settings.get(key)
    const initial = SETTINGS[key].initial as SettingValue
    return {
      key,
      initial,
      value: set?.value ?? initial,
      changedBy: set?.by ?? null,
      changedMs: set?.atMs ?? null,
    }
  }

  setSetting(author: Author, key: string, raw: unknown, seen?: string) {
    this.act(author, `setSetting ${key}`)
    this.#notSince(`setting/${key}`, seen)
    const before = this.setting(key)
    if (!isSettingKey(key)) throw new Error('unreachable')
    const value = readSetting(key, raw)
    const hold = key === 'policy.hold' ? Number(value) : Number(this.setting('policy.hold').value)
    const reject =
      key === 'policy.reject' ? Number(value) : Number(this.setting('policy.reject').value)
    if (hold >= reject)
      throw new RefusalError(
        'invalid',
        key,
        `Reject must be above hold, which is ${hold}.`,
        `Enter more than ${hold}.`,
      )
    this.#settings.set(key, { value, by: author.name, atMs: this.clock.wallMs() })
    this.#note(author, `setting/${key}`, JSON.stringify(before.value), JSON.stringify(value))
    return this.setting(key)
  }

  seenOf(key: string): string {
    return String(this.#changes.filter((change) => change.key === key).length)
  }

  #notSince(key: string, seen = this.seenOf(key)): void {
    if (seen === this.seenOf(key)) return
    throw new RefusalError('conflict', key.replace(/^setting\//, ''), 'Set again since.', 'Look.')
  }

  changes(limit: number): readonly ChangeRow[] {
    return this.#changes.slice(0, limit)
  }

  undoChange(author: Author, id: string): string {
    this.act(author, `undoChange ${id}`)
    const change = this.#changes.find((one) => one.id === id)
    if (change === undefined)
      throw new RefusalError('notFound', 'id', `There is no change ${id}.`, 'List them.')
    const key = change.key.replace('setting/', '')
    if (isSettingKey(key)) this.setSetting(author, key, JSON.parse(change.before ?? 'null'))
    else this.#note(author, change.key, change.after, change.before)
    return change.key
  }

  overview(sinceMs: number, buckets: number) {
    const nowMs = this.clock.wallMs()
    const each = (nowMs - sinceMs) / buckets
    const of = (from: number, to: number, states: readonly string[]) =>
      this.kept
        .filter(({ atMs, mail }) => atMs >= from && atMs < to && states.includes(mail.state))
        .reduce((sum, { mail }) => sum + mail.recipients.length, 0)
    const all = (states: readonly string[]) => of(sinceMs, nowMs + 1, states)
    const rules = new Map<string, number>()
    const senders = new Map<string, number>()
    for (const { mail } of this.kept.filter((one) => one.atMs >= sinceMs)) {
      for (const { rule } of mail.findings ?? []) rules.set(rule, (rules.get(rule) ?? 0) + 1)
      if ((mail.findings ?? []).length > 0)
        senders.set(mail.sender, (senders.get(mail.sender) ?? 0) + 1)
    }
    return {
      counts: {
        delivered: all(['delivered']),
        held: all(['held']),
        rejected: all(['rejected', 'refused']),
        deferred: all([]),
        waiting: all(['deferred', 'queued', 'inDoubt']),
        bounced: all(['bounced']),
      },
      series: Array.from({ length: buckets }, (_, i) => {
        const [from, to] = [sinceMs + i * each, sinceMs + (i + 1) * each]
        return {
          atMs: from,
          delivered: of(from, to, ['delivered']),
          held: of(from, to, ['held']),
          rejected: of(from, to, ['rejected', 'refused']),
          deferred: of(from, to, ['deferred', 'queued']),
        }
      }),
      topRules: [...rules]
        .map(([rule, count]) => ({ rule, count }))
        .sort((a, b) => b.count - a.count)
        .slice(0, 6),
      topSenders: [...senders]
        .map(([sender, count]) => ({ sender, count }))
        .sort((a, b) => b.count - a.count)
        .slice(0, 6),
    }
  }

  search({ text, limit, cursor }: SearchQuery) {
    const rows = this.kept.filter((one) => matches(one, text)).flatMap((one) => this.#traces(one))
    return { ...pageOf(rows, limit, cursor), ...wordsOf(text) }
  }

  async message(id: string) {
    const one = this.#one(id)
    const rows = this.#traces(one)
    const findings = one.mail.findings ?? []
    const unknowns =
      one.mail.unknown === undefined
        ? []
        : [{ inspector: one.mail.unknown, cause: 'It did not answer in 30 s.' }]
    const atDoor = one.mail.state === 'refused'
    const waits = this.#waiting().includes(one)
    const known = this.#isKnown(one.mail)
    return {
      rows,
      events: [
        {
          atMs: one.atMs,
          recipient: null,
          what: rows[0]?.accept ?? '',
          detail: rows[0]?.acceptReply ?? '',
        },
        ...(one.mail.reply === undefined
          ? []
          : [
              {
                atMs: one.atMs + 800,
                recipient: one.mail.recipients[0] ?? null,
                what: one.mail.state === 'queued' ? 'tried' : one.mail.state,
                detail: one.mail.reply,
              },
            ]),
        ...[...one.claims].map(([recipient, { kind, by, atMs }]) => ({
          atMs,
          recipient,
          what: `${kind}d`,
          detail: `by ${by}`,
        })),
      ],
      judgement: atDoor
        ? null
        : {
            verdict: 'hold' as const,
            score: scoreOf(one.mail),
            findings,
            unknowns,
            holdFrom: 8,
            rejectFrom: 15,
            ...(one.mail.insight === undefined ? {} : { insight: one.mail.insight }),
          },
      held: one.mail.state === 'held' ? this.#detail(one) : null,
      queue: known && waits ? this.#queueRow(one) : null,
      queuedOn: !known && waits ? this.#owner(one.mail) : null,
    }
  }

  /** Today everything weighs half. */
  async heldAgain(id: string): Promise<Judgement> {
    const { judgement } = await this.message(id)
    if (judgement === null) throw new RefusalError('notFound', 'id', 'No mail.', 'See the list.')
    const findings = judgement.findings.map((each) => ({ ...each, score: each.score / 2 }))
    const score = findings.reduce((sum, each) => sum + each.score, 0)
    return { ...judgement, findings, score, verdict: score < 8 ? 'deliver' : 'hold' }
  }

  learning() {
    return { spam: 0, ham: 0, minimum: 200 }
  }

  async learnHeld(author: Author, id: string, as: string): Promise<Lesson> {
    this.act(author, `learnHeld ${id} ${as}`)
    return lesson(as)
  }

  async learnSource(
    author: Author,
    bytes: Uint8Array,
    as: string,
    domain: string | null,
  ): Promise<Lesson> {
    this.act(author, `learnSource ${bytes.length} ${as} ${domain}`)
    return lesson(as)
  }

  held({ text, limit, cursor }: SearchQuery) {
    const rows = this.#held()
      .filter((one) => matches(one, text))
      .map((one) => this.#detail(one).row)
    return { ...pageOf(rows, limit, cursor), ...wordsOf(text) }
  }

  heldOne(id: string): HeldDetail {
    const one = this.#one(id)
    if (one.mail.state !== 'held') throw notHere(id)
    return this.#detail(one)
  }

  async heldPreview(id: string) {
    const { mail } = this.#one(id)
    this.#mustHave(mail)
    return {
      subject: mail.subject,
      from: mail.from ?? mail.sender,
      to: mail.recipients.join(', '),
      date: 'Sun, 22 Nov 2026 03:11:50 +0100',
      headers: mail.headers ?? [
        { name: 'From', value: mail.from ?? mail.sender },
        { name: 'To', value: mail.recipients.join(', ') },
        { name: 'Subject', value: mail.subject ?? '' },
      ],
      text: mail.text ?? null,
      html: mail.html ?? null,
      attachments: (mail.attachments ?? []).map((name) => ({
        name,
        type: 'application/zip',
        sizeBytes: 183_296,
        sha256: '9c1f04be'.repeat(8),
      })),
      notes: [],
    }
  }

  async heldSource(id: string) {
    const { mail } = this.#one(id)
    this.#mustHave(mail)
    const head = (mail.headers ?? [{ name: 'Subject', value: mail.subject ?? '' }]).map(
      ({ name, value }) => `${name}: ${value}\r\n`,
    )
    const bytes = Buffer.from(`${head.join('')}\r\n${mail.html ?? mail.text ?? ''}\r\n`)
    return { stream: new Blob([bytes]).stream(), sizeBytes: bytes.length }
  }

  async release(
    author: Author,
    id: string,
    recipient?: string,
    anyway = false,
  ): Promise<HeldDetail> {
    const { mail } = this.#one(id)
    const isDoubtful = mail.doubtMinutes !== undefined && this.#isAway(mail)
    if (isDoubtful && !anyway) {
      throw new RefusalError(
        'doubtful',
        'id',
        `This mail may have been released on ${mail.on}.`,
        'Release it anyway if it may arrive twice.',
      )
    }
    if (isDoubtful) this.act(author, `anyway ${id}`)
    return this.#claim(author, id, 'release', recipient, isDoubtful)
  }

  async deleteHeld(author: Author, id: string, recipient?: string): Promise<HeldDetail> {
    return this.#claim(author, id, 'delete', recipient)
  }

  async queue({ limit, cursor, alone = false }: QueueQuery): Promise<QueuePage> {
    const silent = this.nodes.filter(({ state }) => state === 'dead' || state === 'suspect')
    const rows = this.#waiting()
      .filter(({ mail }) => this.#isKnown(mail) && !(alone && (mail.copies ?? []).length > 0))
      .map((one) => this.#queueRow(one))
    return {
      ...pageOf(rows, limit, cursor),
      silent: silent.map(({ id, name }) => ({ id, name })),
    }
  }

  async retry(author: Author, id: string | null): Promise<Retried> {
    this.act(author, `retry ${id ?? 'all'}`)
    if (id !== null) this.#mustAnswer(this.#one(id).mail)
    const waiting = this.#waiting().filter(({ mail }) => !this.#isAway(mail))
    const silent = this.nodes.filter(({ state }) => state === 'dead')
    if (id !== null) return { retried: 1, silent: [] }
    return {
      retried: waiting.length,
      silent: silent.map((node) => ({ id: node.id, name: node.name })),
    }
  }

  async drop(author: Author, id: string, bounce: boolean): Promise<void> {
    this.act(author, `drop ${id} ${bounce}`)
    const one = this.#one(id)
    this.#mustAnswer(one.mail)
    one.dropped = true
  }

  #mustAnswer(mail: Mail): void {
    if (!this.#isAway(mail)) return
    throw new RefusalError(
      'unavailable',
      'id',
      `This mail waits with ${mail.on}, which does not answer.`,
      'Wait.',
    )
  }

  /** Its owner answers, or somebody who does has a copy. */
  #isKnown(mail: Mail): boolean {
    return !this.#isAway(mail) || (mail.copies ?? []).includes('mx1')
  }

  #claim(
    author: Author,
    id: string,
    kind: 'release' | 'delete',
    recipient?: string,
    anyway = false,
  ): HeldDetail {
    const one = this.#one(id)
    const open = one.mail.recipients.filter((address) => !one.claims.has(address))
    const wanted = recipient === undefined ? open : open.filter((address) => address === recipient)
    if (wanted.length === 0) {
      const [first] = one.claims.values()
      throw new RefusalError(
        'conflict',
        'id',
        `Already ${first?.kind}d by ${first?.by} at 03:02.`,
        'Nothing has to be done.',
      )
    }
    this.act(author, `${kind} ${id} ${wanted.join(' ')}`)
    const to = this.#owner(one.mail)
    if (this.#isAway(one.mail) && !anyway) {
      const clicks = wanted.map((address) => ({ recipient: address, kind, by: author.name, to }))
      const atMs = this.clock.wallMs()
      const before = this.#pending.get(one.id) ?? []
      this.#pending.set(one.id, [...before, ...clicks.map((click) => ({ ...click, atMs }))])
      return this.#detail(one)
    }
    for (const address of wanted) {
      one.claims.set(address, { kind, by: author.name, atMs: this.clock.wallMs() })
    }
    return this.#detail(one)
  }

  #copies({ copies = [] }: Mail): HolderRow[] {
    return copies.map((copy) => {
      const name = copy.replace('?', '')
      return { node: { id: nodeId(name), name }, state: copy === name ? 'kept' : 'sent' }
    })
  }

  #waits(mail: Mail): HeldWaits | null {
    if (!this.#isAway(mail)) return null
    const { doubtMinutes } = mail
    return {
      words: `waits for ${mail.on}`,
      doubtSinceMs: doubtMinutes === undefined ? null : this.clock.wallMs() - doubtMinutes * 60_000,
    }
  }

  #owner({ on = 'mx1' }: Mail) {
    return { id: nodeId(on), name: on }
  }

  #isAway({ on = 'mx1' }: Mail): boolean {
    return this.nodes.find(({ name }) => name === on)?.state !== 'alive'
  }

  #mustHave({ on = 'mx1', ...mail }: Mail): void {
    if (!this.#isAway({ ...mail, on })) return
    throw new RefusalError('unavailable', 'id', `${on} has this mail.`, 'Wait until it answers.')
  }

  #note(author: Author, key: string, before: string | null, after: string | null): void {
    this.#changes.unshift({
      id: String(this.#changes.length + 1),
      atMs: this.clock.wallMs(),
      by: author.name,
      key,
      before,
      after,
    })
  }

  #one(id: string): Kept {
    const one = this.kept.find((kept) => kept.id === id)
    if (one === undefined) throw notHere(id)
    return one
  }

  #held(): readonly Kept[] {
    return this.kept.filter(
      ({ mail, claims }) => mail.state === 'held' && claims.size < mail.recipients.length,
    )
  }

  #waiting(): readonly Kept[] {
    return this.kept.filter(
      ({ mail, dropped }) => !dropped && ['deferred', 'queued', 'inDoubt'].includes(mail.state),
    )
  }

  #detail({ id, mail, atMs, claims }: Kept): HeldDetail {
    const row: HeldRow = {
      id,
      owner: this.#owner(mail),
      holders: this.#copies(mail).map(({ node }) => node),
      pending: this.#pending.get(id) ?? [],
      sender: mail.sender,
      recipients: mail.recipients.filter((address) => !claims.has(address)),
      subject: mail.subject,
      from: mail.from ?? null,
      clientIp: '192.0.2.114',
      sizeBytes: 188_416,
      score: scoreOf(mail),
      rules: (mail.findings ?? []).filter(({ score }) => score > 0).map(({ rule }) => rule),
      findings: mail.findings ?? [],
      unknowns:
        mail.unknown === undefined
          ? []
          : [{ inspector: mail.unknown, cause: 'It did not answer in 30 s.' }],
      heldMs: atMs,
      expiresMs: atMs + 30 * 86_400_000,
    }
    const decided = [...claims].map(([recipient, claim]) => ({ recipient, ...claim }))
    return { row, claims: decided, waits: this.#waits(mail) }
  }

  #queueRow({ id, mail, atMs }: Kept): QueueRow {
    const tried = mail.state !== 'queued'
    return {
      id,
      owner: this.#owner(mail),
      term: mail.term ?? 1,
      holders: this.#copies(mail),
      waits: mail.waits ?? null,
      sender: mail.sender,
      subject: mail.subject,
      sizeBytes: 4_096,
      acceptedMs: atMs,
      expiresMs: atMs + 5 * 86_400_000,
      state: mail.state === 'inDoubt' ? 'inDoubt' : tried ? 'deferred' : 'queued',
      recipients: mail.recipients.map((address) => ({
        address,
        state:
          mail.state === 'inDoubt'
            ? ('inDoubt' as const)
            : tried
              ? ('deferred' as const)
              : ('queued' as const),
        attempts: tried ? 3 : 0,
        nextTryMs: this.clock.wallMs() + 12 * 60_000,
        lastReply: mail.reply ?? null,
      })),
    }
  }

  #traces({ id, mail, atMs, claims, dropped }: Kept): readonly TraceRow[] {
    return mail.recipients.map((recipient) => {
      const claim = claims.get(recipient)
      const door = { held: 'held', rejected: 'rejected', refused: 'refused' } as const
      const accept = mail.state in door ? door[mail.state as keyof typeof door] : 'accepted'
      const ended = accept === 'rejected' || accept === 'refused'
      const state =
        claim === undefined ? mail.state : claim.kind === 'release' ? 'released' : 'deleted'
      return {
        id,
        node: { id: NODE, name: 'mx1' },
        atMs,
        clientIp: '192.0.2.114',
        sender: mail.sender,
        recipient,
        subject: mail.subject,
        sizeBytes: 188_416,
        score: scoreOf(mail),
        rules: (mail.findings ?? []).map(({ rule }) => rule),
        accept,
        acceptReply:
          accept === 'rejected'
            ? '554 5.7.1 Message refused'
            : accept === 'refused'
              ? (mail.reply ?? '550 5.1.1 No such recipient')
              : `250 2.0.0 ${id}`,
        delivery: ended ? null : dropped ? 'dropped' : (state as TraceRow['delivery']),
        deliveryReply: claim !== undefined ? `by ${claim.by}` : ended ? null : (mail.reply ?? null),
        deliveryMs: claim?.atMs ?? (ended || mail.state === 'held' ? null : atMs + 800),
      }
    })
  }
}

function scoreOf(mail: Mail): number {
  return (mail.findings ?? []).reduce((sum, { score }) => sum + score, 0)
}

function notHere(id: string): RefusalError {
  return new RefusalError(
    'notFound',
    'id',
    `There is no mail "${id}" here.`,
    'Copy the id from a list.',
  )
}

function checkPassword(password: string): void {
  if (password.length >= 12) return
  throw new RefusalError(
    'invalid',
    'password',
    'The password is too short.',
    'Use at least 12 characters.',
  )
}

/** Words anywhere; `is:` and `from:` as the real one, the rest is a mistake. */
function matches({ mail, claims }: Kept, text: string): boolean {
  return text.split(/\s+/).every((word) => {
    const not = word.startsWith('-')
    const [field, value = ''] = word.replace('-', '').split(':')
    if (field === 'after' || word === '') return true
    if (field === 'is')
      return (
        (mail.state === value ||
          (value === 'released' && claims.size > 0) ||
          (value === 'unknown' && mail.unknown !== undefined)) !== not
      )
    if (field === 'from') return mail.sender.includes(value) !== not
    if (field === 'score' || field === 'rule') return true
    return `${mail.subject} ${mail.sender} ${mail.recipients.join(' ')}`
      .toLowerCase()
      .includes(word.toLowerCase())
  })
}

function wordsOf(text: string) {
  const mistakes = text.includes('form:') ? ['“form:” is not known; use from: to: subject:.'] : []
  return { words: text === '' ? 'all mails' : `mails with “${text}”`, mistakes }
}

function pageOf<Row>(rows: readonly Row[], limit: number, cursor: string | null) {
  const from = cursor === null ? 0 : Number(cursor)
  const next = from + limit
  return {
    rows: rows.slice(from, next),
    total: rows.length,
    cursor: next < rows.length ? String(next) : null,
  }
}

function lesson(as: string): Lesson {
  if (as !== 'spam' && as !== 'ham' && as !== 'forget')
    throw new RefusalError('invalid', 'as', 'That is no label.', 'Choose spam, ham or forget.')
  const label = as === 'forget' ? null : as
  const flip = null
  return {
    fingerprint: '0'.repeat(32),
    subject: 'Offer',
    label,
    before: null,
    flip,
    spam: 1,
    ham: 0,
  }
}
