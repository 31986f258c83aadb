/**
 * Who may act in the web, on every node: operators, their passwords and sessions, and on this one
 * the lock against guessing and the code of the first set-up.
 *
 * A session belongs to one password of its operator: it ends everywhere when that changes, also
 * where it began while the nodes did not hear each other. Two rules are this node's own view: the
 * last admin stays (two nodes apart may each remove the other's), and so many sign-ins at a time.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { RefusalError } from '../base/errors.ts'
import { atomicWrite, readIfThere, removeFile } from '../base/files.ts'
import type { Observer } from '../base/observe.ts'
import { type Random, randomToken } from '../base/random.ts'
import { forceOf } from '../config/cells.ts'
import { wallMsOf } from '../config/stamp.ts'
import { closest } from '../config/validate.ts'
import type { Audit, AuditRow } from './audit.ts'
import type { Changes } from './changes.ts'
import { Guesses } from './guesses.ts'
import { checkPassword, fingerprint, Passwords } from './passwords.ts'
import type { SharedRows } from './shared.ts'

export type Role = 'admin' | 'viewer'
export type Operator = {
  readonly name: string
  readonly role: Role
  readonly addedMs: number
  readonly lastSeenMs: number | null
}
const IDLE_MS = 12 * 3_600_000
const SESSION_MS = 7 * 86_400_000
/** A session's last use is written at most this often: every node gets it. */
const SEEN_EVERY_MS = 600_000
/** When an operator was here last is of use this long. */
const SEEN_KEPT_MS = 400 * 86_400_000
const SESSIONS_MAX = 1_000
const OPERATORS_MAX = 200
/** What is guessed at before there is an operator. */
const SETUP_CODE = 'set-up code'

type Known = {
  readonly role: Role
  readonly addedMs: number
  /** Null: the row of the password has not come yet. */
  readonly passwordHash: string | null
}
type Session = {
  readonly operator: string
  readonly beganMs: number
  /** As the row has it; `lastMs` may be later. */
  readonly seenMs: number
  /** Fingerprint of the password that it was begun with. */
  readonly password: string
  lastMs: number
}

export type OperatorsDeps = {
  readonly clock: Clock
  readonly random: Random
  readonly observer: Observer
  readonly audit: Audit
  /** False on a node that joined others: who may act is decided there. */
  readonly maySetUp: () => boolean
}

export class Operators {
  readonly #rows: SharedRows
  readonly #changes: Changes
  readonly #audit: Audit
  readonly #clock: Clock
  readonly #random: Random
  readonly #observer: Observer
  readonly #maySetUp: () => boolean
  readonly #codePath: string
  readonly #guesses: Guesses
  readonly #passwords: Passwords
  /** By hash of the token. */
  readonly #sessions = new Map<string, Session>()
  readonly #known = new Map<string, Known>()
  readonly #lastSeen = new Map<string, number>()
  #code: string | null = null

  /**
   * `dataDirectory` holds the code of the set-up while there is no operator. Before `rows.start`;
   * then `load`.
   */
  constructor(rows: SharedRows, changes: Changes, dataDirectory: string, deps: OperatorsDeps) {
    this.#rows = rows
    this.#changes = changes
    this.#audit = deps.audit
    this.#clock = deps.clock
    this.#random = deps.random
    this.#observer = deps.observer
    this.#maySetUp = deps.maySetUp
    this.#guesses = new Guesses(deps.clock)
    this.#passwords = new Passwords(deps.random)
    this.#codePath = join(dataDirectory, 'setup-code')
    rows.onChange('operator', ({ keys }) => {
      for (const name of new Set(keys.map(nameOfKey))) this.#lookAtOperator(name)
    })
    rows.onChange('session', ({ keys }) => {
      for (const hash of keys) this.#lookAtSession(hash)
    })
    rows.onChange('seen', ({ keys }) => {
      for (const name of keys) this.#lookAtSeen(name)
    })
    rows.onChange('setup', () => this.#closeSetupOnceDone())
  }

  /** @throws StoreError */
  load(): void {
    for (const { key } of this.#rows.list('operator')) {
      if (!key.includes('/')) this.#lookAtOperator(key)
    }
    for (const { key } of this.#rows.list('session')) this.#lookAtSession(key)
    for (const { key } of this.#rows.list('seen')) this.#lookAtSeen(key)
    this.#closeSetupOnceDone()
    if (!this.#isSetUp() && this.#maySetUp()) this.#code = this.#openSetup()
  }

  /** The code that opens the set-up; null once there is an operator, or on a node that joined. */
  get setupCode(): string | null {
    return this.#maySetUp() ? this.#code : null
  }

  /** Compares in constant time; spaces, dashes and case do not matter. @throws RefusalError locked */
  setupCodeMatches(code: string, clientIp: string): boolean {
    const right = this.setupCode
    if (right === null) return false
    this.#guesses.refuse(SETUP_CODE, clientIp)
    const matches = equal(plainCode(code), plainCode(right))
    if (matches) this.#guesses.right(SETUP_CODE, clientIp)
    else this.#guesses.wrong(SETUP_CODE, clientIp)
    return matches
  }

  /** By name. */
  list(): readonly Operator[] {
    return [...this.#known]
      .map(([name, { role, addedMs }]) => ({
        name,
        role,
        addedMs,
        lastSeenMs: this.#lastSeen.get(name) ?? null,
      }))
      .sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  /**
   * Adds an operator; the first one must be an admin and closes the set-up.
   * @throws RefusalError invalid, conflict, unavailable; StoreError
   */
  async add(
    author: string,
    input: { readonly name: string; readonly password: string; readonly role: string },
  ): Promise<void> {
    this.#changes.mustBeWritable()
    const name = readName(input.name)
    const role = readRole(input.role)
    this.#checkNew(name, role)
    checkPassword(input.password, name)
    const passwordHash = await this.#passwords.hash(input.password)
    // Asked again: another one may have come while the hash was computed.
    this.#checkNew(name, role)
    this.#begin(author, { name, role, passwordHash }, ['operator.add', role])
  }

  /**
   * The first operator, by the code of the set-up. @throws RefusalError forbidden for a wrong
   * code, conflict when the set-up is closed, locked, invalid
   */
  async setup(input: {
    readonly code: string
    readonly name: string
    readonly password: string
    readonly clientIp: string
  }): Promise<void> {
    if (this.setupCode === null) throw setupClosed()
    if (!this.setupCodeMatches(input.code, input.clientIp)) {
      throw new RefusalError(
        'forbidden',
        'code',
        'This is not the set-up code.',
        'Copy it from the output of postern serve, or from the file setup-code in the data directory.',
      )
    }
    const name = readName(input.name)
    checkPassword(input.password, name)
    const passwordHash = await this.#passwords.hash(input.password)
    // Two at once with the right code: the second comes to a closed set-up.
    if (this.setupCode === null) throw setupClosed()
    this.#begin(name, { name, role: 'admin', passwordHash }, ['operator.setup', input.clientIp])
  }

  /** Ends the sessions too. @throws RefusalError notFound; conflict for the last admin */
  remove(author: string, name: string): void {
    this.#changes.mustBeWritable()
    const { role } = this.#mustKnow(name)
    const admins = [...this.#known.values()].filter((other) => other.role === 'admin').length
    if (role === 'admin' && admins === 1) {
      throw new RefusalError(
        'conflict',
        'name',
        `${name} is the last admin.`,
        'Add another admin first.',
      )
    }
    this.#rows.transact(() => {
      this.#rows.write('operator', `${name}/password`, null, author)
      this.#rows.write('operator', name, null, author)
      this.#changes.note(author, `operator/${name}`, JSON.stringify({ role }), null)
      this.#audit.write(author, 'operator.remove', name, '')
    })
  }

  /** Ends all sessions of that operator but `keep`, a token. @throws RefusalError as `add` */
  async changePassword(
    author: string,
    name: string,
    password: string,
    keep: string | null = null,
  ): Promise<void> {
    this.#changes.mustBeWritable()
    this.#mustKnow(name)
    checkPassword(password, name)
    const passwordHash = await this.#passwords.hash(password)
    this.#mustKnow(name)
    const hash = keep === null ? '' : hashOf(keep)
    const kept = this.#sessions.get(hash)
    this.#rows.transact(() => {
      this.#rows.write('operator', `${name}/password`, JSON.stringify(passwordHash), author)
      if (kept?.operator === name) {
        this.#putSession(hash, { ...kept, password: fingerprint(passwordHash) })
      }
      this.#audit.write(author, 'operator.password', name, '')
    })
  }

  /**
   * A new session for the right password. A wrong name costs the same time as a wrong password.
   * @throws RefusalError unauthenticated; locked with the time to wait; unavailable
   */
  async login(
    name: string,
    password: string,
    clientIp: string,
  ): Promise<{ readonly token: string; readonly name: string; readonly role: Role }> {
    const known = name.trim().toLowerCase().slice(0, 64)
    this.#guesses.refuse(known, clientIp)
    const passwordHash = this.#known.get(known)?.passwordHash ?? null
    const right = await this.#passwords.verify(password, passwordHash)
    // Again: guesses sent side by side must not all pass the gate before the first is counted.
    this.#guesses.refuse(known, clientIp)
    const operator = this.#known.get(known)
    // The password may have been changed, here or elsewhere, while this one was looked at.
    if (operator === undefined || !right || operator.passwordHash !== passwordHash) {
      this.#guesses.wrong(known, clientIp)
      this.#observer.emit('operator.entered', { result: 'refused', client: clientIp })
      throw new RefusalError(
        'unauthenticated',
        null,
        'Name or password is wrong.',
        'Try again; after five wrong ones there is a wait.',
      )
    }
    this.#guesses.right(known, clientIp)
    const token = this.#enter(known, fingerprint(passwordHash ?? ''))
    this.#observer.emit('operator.entered', {
      result: 'entered',
      operator: known,
      client: clientIp,
    })
    return { token, name: known, role: operator.role }
  }

  /** Whose session the token is; null when there is none, or it was idle too long or is too old. */
  authenticate(token: string): { readonly name: string; readonly role: Role } | null {
    if (token.length > 200) return null
    const hash = hashOf(token)
    const session = this.#sessions.get(hash)
    if (session === undefined) return null
    const nowMs = this.#clock.wallMs()
    const operator = this.#known.get(session.operator)
    // Nothing is ended here: the row that makes it hold may be on its way.
    if (operator === undefined || !this.#holds(session, operator, nowMs)) return null
    session.lastMs = nowMs
    if (nowMs - session.seenMs > SEEN_EVERY_MS) {
      this.#rows.transact(() => {
        this.#putSession(hash, { ...session, seenMs: nowMs })
        this.#putSeen(session.operator, nowMs)
      })
    }
    return { name: session.operator, role: operator.role }
  }

  /** On every node. */
  logout(token: string): void {
    this.#end(hashOf(token))
  }

  /** Writes down what an author did. @throws StoreError */
  audit(author: string, act: string, subject: string, detail: string): void {
    this.#audit.write(author, act, subject, detail)
  }

  /** Newest first. @throws StoreError */
  audited(limit: number): readonly AuditRow[] {
    return this.#audit.newest(limit)
  }

  #lookAtOperator(name: string): void {
    const cell = this.#rows.cell('operator', name)
    const head = cell === null ? null : forceOf('operator', name, cell)
    const value = head === null || head.value === null ? null : parse(head.value)
    if (head === null || value === null || !isRole(value['role'])) {
      this.#known.delete(name)
      return
    }
    const key = `${name}/password`
    const secret = this.#rows.cell('operator', key)
    const text = secret === null ? null : forceOf('operator', key, secret).value
    const addedMs = Number.isSafeInteger(value['addedMs'])
      ? Number(value['addedMs'])
      : wallMsOf(head.stamp)
    this.#known.set(name, { role: value['role'], addedMs, passwordHash: readText(text) })
    this.#closeSetupOnceDone()
  }

  #lookAtSession(hash: string): void {
    const row = this.#rows.owned('session', hash)
    const value = row === null || row.value === null ? null : parse(row.value)
    const { operator, beganMs, seenMs, password } = value ?? {}
    if (
      typeof operator !== 'string' ||
      typeof beganMs !== 'number' ||
      typeof seenMs !== 'number' ||
      typeof password !== 'string' ||
      this.#clock.wallMs() - beganMs > SESSION_MS
    ) {
      this.#sessions.delete(hash)
      return
    }
    const lastMs = Math.max(seenMs, this.#sessions.get(hash)?.lastMs ?? 0)
    this.#sessions.set(hash, { operator, beganMs, seenMs, password, lastMs })
  }

  #lookAtSeen(name: string): void {
    const row = this.#rows.owned('seen', name)
    if (row === null) this.#lastSeen.delete(name)
    else this.#lastSeen.set(name, row.version[1])
  }

  /** Once there was an operator anywhere, for good: also when all of them are gone. */
  #isSetUp(): boolean {
    return this.#known.size > 0 || this.#rows.cell('setup', 'closed') !== null
  }

  #closeSetupOnceDone(): void {
    if (!this.#isSetUp()) return
    this.#code = null
    removeFile(this.#codePath)
  }

  #openSetup(): string {
    const there = readIfThere(this.#codePath)?.trim() ?? ''
    if (plainCode(there).length >= 12) return there
    const code = newCode(this.#random)
    atomicWrite(this.#codePath, `${code}\n`)
    return code
  }

  #checkNew(name: string, role: Role): void {
    if (this.#known.has(name)) {
      throw new RefusalError(
        'conflict',
        'name',
        `There is already an operator ${name}.`,
        'Choose another name, or change the password of this one.',
      )
    }
    if (this.#known.size === 0 && role !== 'admin') {
      throw new RefusalError(
        'invalid',
        'role',
        'The first operator must be an admin.',
        'Choose the role admin.',
      )
    }
    if (this.#known.size >= OPERATORS_MAX) {
      throw new RefusalError(
        'invalid',
        'name',
        `There are already ${OPERATORS_MAX} operators.`,
        'Remove one that is not used any more.',
      )
    }
  }

  #mustKnow(name: string): Known {
    const known = this.#known.get(name)
    if (known !== undefined) return known
    const near = closest(name, [...this.#known.keys()])
    throw new RefusalError(
      'notFound',
      'name',
      `There is no operator ${JSON.stringify(name.slice(0, 64))}.`,
      near.length > 0 ? `Did you mean ${near.join(' or ')}?` : 'See the list of operators.',
    )
  }

  /** Writes a new operator; the first one closes the set-up on every node. */
  #begin(
    author: string,
    operator: { readonly name: string; readonly role: Role; readonly passwordHash: string },
    [act, detail]: readonly [act: string, detail: string],
  ): void {
    const { name, role, passwordHash } = operator
    const addedMs = this.#clock.wallMs()
    this.#rows.transact(() => {
      // The password first: a peer that gets half of it must not know an operator without one.
      this.#rows.write('operator', `${name}/password`, JSON.stringify(passwordHash), author)
      this.#rows.write('operator', name, JSON.stringify({ role, addedMs }), author)
      if (this.#rows.cell('setup', 'closed') === null) {
        this.#rows.write('setup', 'closed', 'true', author)
      }
      this.#changes.note(author, `operator/${name}`, null, JSON.stringify({ role }))
      this.#audit.write(author, act, name, detail)
    })
  }

  #enter(operator: string, password: string): string {
    const token = randomToken(this.#random, 32)
    const nowMs = this.#clock.wallMs()
    this.#endOldest(nowMs)
    this.#rows.transact(() => {
      const session = { operator, beganMs: nowMs, seenMs: nowMs, password }
      this.#putSession(hashOf(token), session)
      this.#putSeen(operator, nowMs)
    })
    return token
  }

  #holds(session: Session, { passwordHash }: Known, nowMs: number): boolean {
    return (
      passwordHash !== null &&
      session.password === fingerprint(passwordHash) &&
      nowMs - session.lastMs <= IDLE_MS &&
      nowMs - session.beganMs <= SESSION_MS
    )
  }

  /** Inside a transaction. */
  #putSession(hash: string, session: Omit<Session, 'lastMs'>): void {
    const { operator, beganMs, seenMs, password } = session
    const revision = (this.#rows.owned('session', hash)?.version[1] ?? 0) + 1
    const value = JSON.stringify({ operator, beganMs, seenMs, password })
    this.#rows.put('session', hash, [1, revision], value, operator, beganMs + SESSION_MS)
  }

  /** Inside a transaction. */
  #putSeen(name: string, nowMs: number): void {
    const before = this.#rows.owned('seen', name)?.version[1] ?? 0
    if (nowMs <= before) return
    this.#rows.put('seen', name, [1, nowMs], 'true', name, nowMs + SEEN_KEPT_MS)
  }

  #end(hash: string): void {
    const session = this.#sessions.get(hash)
    const row = this.#rows.owned('session', hash)
    if (session === undefined || row === null) return
    // A term of its own: no use of the session that another node writes meanwhile revives it.
    const { operator, beganMs } = session
    this.#rows.put('session', hash, [2, row.version[1]], null, operator, beganMs + SESSION_MS)
  }

  #endOldest(nowMs: number): void {
    for (const [hash, { beganMs }] of this.#sessions) {
      if (nowMs - beganMs > SESSION_MS) this.#sessions.delete(hash)
    }
    if (this.#sessions.size < SESSIONS_MAX) return
    const [oldest] = [...this.#sessions].sort(([, a], [, b]) => a.lastMs - b.lastMs)
    if (oldest !== undefined) this.#end(oldest[0])
  }
}

function setupClosed(): RefusalError {
  return new RefusalError(
    'conflict',
    null,
    'The set-up is closed: there is an operator, or this node joined others.',
    'Sign in, or ask an admin to add you.',
  )
}

/** @throws RefusalError invalid, field `name` */
function readName(raw: string): string {
  const name = raw.trim().toLowerCase()
  if (!/^[a-z0-9][a-z0-9._@+-]{0,63}$/.test(name)) {
    throw new RefusalError(
      'invalid',
      'name',
      `${JSON.stringify(raw.slice(0, 64))} is not a name for an operator.`,
      'Use 1 to 64 letters, digits and . _ @ + -, the first a letter or a digit.',
    )
  }
  // These two stand in claims and changes for what no operator did.
  if (['cli', 'postern', 'set-up'].includes(name)) {
    throw new RefusalError(
      'invalid',
      'name',
      `${name} is a name of the gateway itself.`,
      'Choose another name.',
    )
  }
  return name
}

/** @throws RefusalError invalid, field `role` */
export function readRole(raw: string): Role {
  if (isRole(raw)) return raw
  throw new RefusalError(
    'invalid',
    'role',
    `There is no role ${JSON.stringify(raw.slice(0, 64))}.`,
    'Choose admin or viewer.',
  )
}

function isRole(raw: unknown): raw is Role {
  return raw === 'admin' || raw === 'viewer'
}

/** `ruiz/password` as `ruiz`. */
function nameOfKey(key: string): string {
  return key.split('/')[0] ?? key
}

function parse(text: string): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? { ...value } : null
  } catch {
    return null
  }
}

function readText(json: string | null): string | null {
  if (json === null) return null
  try {
    const value: unknown = JSON.parse(json)
    return typeof value === 'string' ? value : null
  } catch {
    return null
  }
}

function hashOf(token: string): string {
  return createHash('sha256').update(token).digest('base64url')
}

/** Four groups of four from an alphabet without look-alikes: 79 bits, easy to read aloud. */
function newCode(random: Random): string {
  const alphabet = 'abcdefghjkmnpqrstuvwxyz23456789'
  const letters = Array.from({ length: 16 }, () => alphabet[random.below(alphabet.length)] ?? '')
  return [0, 4, 8, 12].map((start) => letters.slice(start, start + 4).join('')).join('-')
}

function plainCode(code: string): string {
  return code
    .toLowerCase()
    .replace(/[^a-z0-9]/g, '')
    .slice(0, 100)
}

function equal(a: string, b: string): boolean {
  const hash = (text: string) => createHash('sha256').update(text).digest()
  return timingSafeEqual(hash(a), hash(b))
}
