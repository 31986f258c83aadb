/**
 * Who may act in the web: operators, their passwords and sessions, the lock against guessing, the
 * code of the first set-up, and the audit of what was done.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { isIPv6 } from 'node:net'
import { join } from 'node:path'
import { and, asc, desc, eq, lte, ne } from 'drizzle-orm'
import type { Clock } from '../base/clock.ts'
import { RefusalError } from '../base/errors.ts'
import { atomicWrite, readIfThere, removeFile } from '../base/files.ts'
import type { Observer } from '../base/observe.ts'
import { type Random, randomToken } from '../base/random.ts'
import { closest } from '../config/validate.ts'
import type { Changes } from './changes.ts'
import type { StoreDatabase } from './db.ts'
import { audits, operators, sessions } from './tables.ts'

export type Role = 'admin' | 'viewer'
export type Operator = {
  readonly name: string
  readonly role: Role
  readonly addedMs: number
  readonly lastSeenMs: number | null
}
export type AuditRow = {
  readonly seq: number
  readonly atMs: number
  readonly author: string
  readonly act: string
  readonly subject: string
  readonly detail: string
}

const IDLE_MS = 12 * 3_600_000
const SESSION_MS = 7 * 86_400_000
/** A session's last use is written at most this often. */
const SEEN_EVERY_MS = 60_000
const SESSIONS_MAX = 1_000
const OPERATORS_MAX = 200
const AUDIT_ROWS_MAX = 100_000
/** A message has up to 10,000 recipients; the claims name them all. */
const AUDIT_DETAIL_MAX = 1_000

const PASSWORD_CHARACTERS_MIN = 8
const PASSWORD_BYTES_MAX = 1_024
/**
 * One of OWASP's equal choices for argon2id, the one with the least memory: what a hash takes
 * stays with the process, and the main process has a budget.
 */
const HASHING = { algorithm: 'argon2id', memoryCost: 7_168, timeCost: 5 } as const
/** Hashes computed at a time, and those that may wait: each costs 7 MB and 20 ms of a core. */
const HASHES_AT_ONCE = 2
const HASHES_WAITING_MAX = 50

const WRONG_FREE = 5
const LOCK_FIRST_MS = 30_000
const LOCK_LONGEST_MS = 900_000
/** Pairs of name and network that are remembered; the longest unused goes. */
const LOCKS_MAX = 10_000
/** A pair is forgotten when nothing wrong came for this long. */
const LOCK_FORGET_MS = 3_600_000

type Lock = { wrong: number; untilMs: number; lastMs: number }
type Session = {
  readonly operator: string
  readonly beganMs: number
  seenMs: number
  writtenMs: number
}

export class Operators {
  readonly #store: StoreDatabase
  readonly #changes: Changes
  readonly #clock: Clock
  readonly #random: Random
  readonly #observer: Observer
  readonly #codePath: string
  readonly #locks = new Map<string, Lock>()
  /** By hash of the token. */
  readonly #sessions = new Map<string, Session>()
  readonly #roles = new Map<string, Role>()
  #code: string | null = null
  #hashing = 0
  readonly #hashQueue: (() => void)[] = []
  #decoy: Promise<string> | null = null

  /** `dataDirectory` holds the code of the set-up while there is no operator. @throws StoreError */
  constructor(
    store: StoreDatabase,
    changes: Changes,
    dataDirectory: string,
    deps: { readonly clock: Clock; readonly random: Random; readonly observer: Observer },
  ) {
    this.#store = store
    this.#changes = changes
    this.#clock = deps.clock
    this.#random = deps.random
    this.#observer = deps.observer
    this.#codePath = join(dataDirectory, 'setup-code')
    this.#load()
  }

  /** The code that opens the set-up; null once there is an operator. */
  get setupCode(): string | null {
    return this.#code
  }

  /** Compares in constant time; spaces, dashes and case do not matter. @throws RefusalError locked */
  setupCodeMatches(code: string, clientIp: string): boolean {
    if (this.#code === null) return false
    const key = lockKey('set-up code', clientIp)
    this.#refuseLocked(key)
    const matches = equal(plainCode(code), plainCode(this.#code))
    if (matches) this.#locks.delete(key)
    else this.#countWrong(key)
    return matches
  }

  list(): readonly Operator[] {
    return this.#store.attempt(() =>
      this.#store.query
        .select({
          name: operators.name,
          role: operators.role,
          addedMs: operators.addedMs,
          lastSeenMs: operators.lastSeenMs,
        })
        .from(operators)
        .orderBy(asc(operators.name))
        .all(),
    )
  }

  /**
   * Adds an operator; the first one must be an admin and closes the set-up.
   * @throws RefusalError invalid, conflict, unavailable; StoreError
   */
  async add(
    author: string,
    input: { readonly name: string; readonly password: string; readonly role: string },
  ): Promise<void> {
    const name = readName(input.name)
    const role = readRole(input.role)
    this.#checkNew(name, role)
    checkPassword(input.password, name)
    const passwordHash = await this.#hash(input.password)
    // Asked again: another one may have come while the hash was computed.
    this.#checkNew(name, role)
    const addedMs = this.#clock.wallMs()
    this.#store.transact(() => {
      this.#store.query
        .insert(operators)
        .values({ name, passwordHash, role, addedMs, addedBy: author })
        .run()
      this.#changes.note(author, `operator/${name}`, null, JSON.stringify({ role }))
      this.#audit(author, 'operator.add', name, role)
    })
    this.#roles.set(name, role)
    this.#closeSetup()
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
    if (this.#roles.size > 0) throw setupClosed()
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
    const passwordHash = await this.#hash(input.password)
    const addedMs = this.#clock.wallMs()
    // Two at once with the right code: the second comes to a closed set-up.
    if (this.#roles.size > 0) throw setupClosed()
    this.#store.transact(() => {
      this.#store.query
        .insert(operators)
        .values({ name, passwordHash, role: 'admin', addedMs, addedBy: 'set-up' })
        .run()
      this.#changes.note(name, `operator/${name}`, null, JSON.stringify({ role: 'admin' }))
      this.#audit(name, 'operator.setup', name, input.clientIp)
    })
    this.#roles.set(name, 'admin')
    this.#closeSetup()
  }

  /** Ends the sessions too. @throws RefusalError notFound; conflict for the last admin */
  remove(author: string, name: string): void {
    const role = this.#roleOf(name)
    const admins = [...this.#roles.values()].filter((other) => other === 'admin').length
    if (role === 'admin' && admins === 1) {
      throw new RefusalError(
        'conflict',
        'name',
        `${name} is the last admin.`,
        'Add another admin first.',
      )
    }
    this.#store.transact(() => {
      this.#store.query.delete(operators).where(eq(operators.name, name)).run()
      this.#changes.note(author, `operator/${name}`, JSON.stringify({ role }), null)
      this.#audit(author, 'operator.remove', name, '')
    })
    this.#roles.delete(name)
    for (const [hash, session] of this.#sessions) {
      if (session.operator === name) this.#sessions.delete(hash)
    }
  }

  /** Ends all sessions of that operator but `keep`, a token. @throws RefusalError as `add` */
  async changePassword(
    author: string,
    name: string,
    password: string,
    keep: string | null = null,
  ): Promise<void> {
    this.#roleOf(name)
    checkPassword(password, name)
    const passwordHash = await this.#hash(password)
    this.#roleOf(name)
    const kept = keep === null ? '' : hashOf(keep)
    this.#store.transact(() => {
      this.#store.query
        .update(operators)
        .set({ passwordHash })
        .where(eq(operators.name, name))
        .run()
      this.#store.query
        .delete(sessions)
        .where(and(eq(sessions.operator, name), ne(sessions.tokenHash, kept)))
        .run()
      this.#audit(author, 'operator.password', name, '')
    })
    for (const [hash, session] of this.#sessions) {
      if (session.operator === name && hash !== kept) this.#sessions.delete(hash)
    }
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
    const key = lockKey(known, clientIp)
    this.#refuseLocked(key)
    const stored = this.#store.attempt(() =>
      this.#store.query.select().from(operators).where(eq(operators.name, known)).get(),
    )
    const right = await this.#verify(password, stored?.passwordHash ?? null)
    // Again: guesses sent side by side must not all pass the gate before the first is counted.
    this.#refuseLocked(key)
    if (stored === undefined || !right || !this.#roles.has(known)) {
      this.#countWrong(key)
      this.#observer.emit('operator.entered', { result: 'refused', client: clientIp })
      throw new RefusalError(
        'unauthenticated',
        null,
        'Name or password is wrong.',
        'Try again; after five wrong ones there is a wait.',
      )
    }
    this.#locks.delete(key)
    const token = this.#begin(known)
    this.#observer.emit('operator.entered', {
      result: 'entered',
      operator: known,
      client: clientIp,
    })
    return { token, name: known, role: stored.role }
  }

  /** Whose session the token is; null when there is none, or it was idle too long or is too old. */
  authenticate(token: string): { readonly name: string; readonly role: Role } | null {
    if (token.length > 200) return null
    const hash = hashOf(token)
    const session = this.#sessions.get(hash)
    if (session === undefined) return null
    const nowMs = this.#clock.wallMs()
    const role = this.#roles.get(session.operator)
    if (
      role === undefined ||
      nowMs - session.seenMs > IDLE_MS ||
      nowMs - session.beganMs > SESSION_MS
    ) {
      this.#end(hash)
      return null
    }
    session.seenMs = nowMs
    if (nowMs - session.writtenMs > SEEN_EVERY_MS) this.#writeSeen(hash, session)
    return { name: session.operator, role }
  }

  logout(token: string): void {
    this.#end(hashOf(token))
  }

  /** Writes down what an author did. @throws StoreError */
  audit(author: string, act: string, subject: string, detail: string): void {
    this.#store.transact(() => this.#audit(author, act, subject, detail))
  }

  /** Newest first. @throws StoreError */
  audited(limit: number): readonly AuditRow[] {
    return this.#store.attempt(() =>
      this.#store.query.select().from(audits).orderBy(desc(audits.seq)).limit(limit).all(),
    )
  }

  #load(): void {
    const nowMs = this.#clock.wallMs()
    const stored = this.#store.transact(() => {
      const { query } = this.#store
      query
        .delete(sessions)
        .where(lte(sessions.beganMs, nowMs - SESSION_MS))
        .run()
      query
        .delete(sessions)
        .where(lte(sessions.seenMs, nowMs - IDLE_MS))
        .run()
      return query.select().from(sessions).all()
    })
    for (const { tokenHash, operator, beganMs, seenMs } of stored) {
      this.#sessions.set(tokenHash, { operator, beganMs, seenMs, writtenMs: seenMs })
    }
    for (const { name, role } of this.list()) this.#roles.set(name, role)
    if (this.#roles.size > 0) this.#closeSetup()
    else this.#code = this.#openSetup()
  }

  #openSetup(): string {
    const there = readIfThere(this.#codePath)?.trim() ?? ''
    if (plainCode(there).length >= 12) return there
    const code = newCode(this.#random)
    atomicWrite(this.#codePath, `${code}\n`)
    return code
  }

  #closeSetup(): void {
    this.#code = null
    removeFile(this.#codePath)
  }

  #checkNew(name: string, role: Role): void {
    if (this.#roles.has(name)) {
      throw new RefusalError(
        'conflict',
        'name',
        `There is already an operator ${name}.`,
        'Choose another name, or change the password of this one.',
      )
    }
    if (this.#roles.size === 0 && role !== 'admin') {
      throw new RefusalError(
        'invalid',
        'role',
        'The first operator must be an admin.',
        'Choose the role admin.',
      )
    }
    if (this.#roles.size >= OPERATORS_MAX) {
      throw new RefusalError(
        'invalid',
        'name',
        `There are already ${OPERATORS_MAX} operators.`,
        'Remove one that is not used any more.',
      )
    }
  }

  #roleOf(name: string): Role {
    const role = this.#roles.get(name)
    if (role !== undefined) return role
    const near = closest(name, [...this.#roles.keys()])
    throw new RefusalError(
      'notFound',
      'name',
      `There is no operator ${JSON.stringify(name.slice(0, 64))}.`,
      near.length > 0 ? `Did you mean ${near.join(' or ')}?` : 'See the list of operators.',
    )
  }

  #begin(operator: string): string {
    const token = randomToken(this.#random, 32)
    const tokenHash = hashOf(token)
    const nowMs = this.#clock.wallMs()
    if (this.#sessions.size >= SESSIONS_MAX) this.#endOldest()
    this.#store.transact(() => {
      const { query } = this.#store
      query.insert(sessions).values({ tokenHash, operator, beganMs: nowMs, seenMs: nowMs }).run()
      query.update(operators).set({ lastSeenMs: nowMs }).where(eq(operators.name, operator)).run()
    })
    this.#sessions.set(tokenHash, { operator, beganMs: nowMs, seenMs: nowMs, writtenMs: nowMs })
    return token
  }

  #end(hash: string): void {
    if (!this.#sessions.delete(hash)) return
    this.#store.transact(() =>
      this.#store.query.delete(sessions).where(eq(sessions.tokenHash, hash)).run(),
    )
  }

  #endOldest(): void {
    const [oldest] = [...this.#sessions].sort(([, a], [, b]) => a.seenMs - b.seenMs)
    if (oldest !== undefined) this.#end(oldest[0])
  }

  #writeSeen(hash: string, session: Session): void {
    session.writtenMs = session.seenMs
    this.#store.transact(() => {
      const { query } = this.#store
      const { seenMs, operator } = session
      query.update(sessions).set({ seenMs }).where(eq(sessions.tokenHash, hash)).run()
      query.update(operators).set({ lastSeenMs: seenMs }).where(eq(operators.name, operator)).run()
    })
  }

  /** Inside a transaction. */
  #audit(author: string, act: string, subject: string, detail: string): void {
    const { query } = this.#store
    const { seq } = query
      .insert(audits)
      .values({
        atMs: this.#clock.wallMs(),
        author,
        act,
        subject,
        detail: detail.slice(0, AUDIT_DETAIL_MAX),
      })
      .returning({ seq: audits.seq })
      .get()
    query
      .delete(audits)
      .where(lte(audits.seq, seq - AUDIT_ROWS_MAX))
      .run()
  }

  #refuseLocked(key: string): void {
    const lock = this.#locks.get(key)
    const waitMs = lock === undefined ? 0 : lock.untilMs - this.#clock.monoMs()
    if (waitMs <= 0) return
    throw new RefusalError(
      'locked',
      null,
      'There were too many wrong attempts.',
      `Wait ${inWords(waitMs)}, then try again.`,
    )
  }

  #countWrong(key: string): void {
    const nowMs = this.#clock.monoMs()
    const before = this.#locks.get(key)
    const wrong =
      before === undefined || nowMs - before.lastMs > LOCK_FORGET_MS ? 1 : before.wrong + 1
    const waitMs =
      wrong < WRONG_FREE
        ? 0
        : Math.min(LOCK_FIRST_MS * 2 ** Math.min(wrong - WRONG_FREE, 10), LOCK_LONGEST_MS)
    // Deleted first: a map keeps the order of insertion, so its first is the longest unused.
    this.#locks.delete(key)
    this.#locks.set(key, { wrong, untilMs: nowMs + waitMs, lastMs: nowMs })
    if (this.#locks.size <= LOCKS_MAX) return
    for (const oldest of this.#locks.keys()) {
      this.#locks.delete(oldest)
      return
    }
  }

  async #hash(password: string): Promise<string> {
    return this.#inTurn(() => Bun.password.hash(password, HASHING))
  }

  async #verify(password: string, hash: string | null): Promise<boolean> {
    if (Buffer.byteLength(password) > PASSWORD_BYTES_MAX) return false
    return this.#inTurn(async () => {
      if (hash !== null) return Bun.password.verify(password, hash)
      this.#decoy ??= Bun.password.hash(randomToken(this.#random, 16), HASHING)
      await Bun.password.verify(password, await this.#decoy)
      return false
    })
  }

  async #inTurn<Result>(act: () => Promise<Result>): Promise<Result> {
    if (this.#hashing >= HASHES_AT_ONCE) {
      if (this.#hashQueue.length >= HASHES_WAITING_MAX) {
        throw new RefusalError(
          'unavailable',
          null,
          'Too many sign-ins arrive at this moment.',
          'Try again in a few seconds.',
        )
      }
      await new Promise<void>((resolve) => this.#hashQueue.push(resolve))
    } else this.#hashing += 1
    try {
      return await act()
    } finally {
      const next = this.#hashQueue.shift()
      if (next === undefined) this.#hashing -= 1
      else next()
    }
  }
}

function setupClosed(): RefusalError {
  return new RefusalError(
    'conflict',
    null,
    'The set-up is closed: there is already an operator.',
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

function readRole(raw: string): Role {
  if (raw === 'admin' || raw === 'viewer') return raw
  throw new RefusalError(
    'invalid',
    'role',
    `There is no role ${JSON.stringify(raw.slice(0, 64))}.`,
    'Choose admin or viewer.',
  )
}

function checkPassword(password: string, name: string): void {
  const refuse = (message: string, advice: string): never => {
    throw new RefusalError('invalid', 'password', message, advice)
  }
  if (password.length < PASSWORD_CHARACTERS_MIN) {
    refuse('The password is too short.', `Use at least ${PASSWORD_CHARACTERS_MIN} characters.`)
  }
  if (Buffer.byteLength(password) > PASSWORD_BYTES_MAX) {
    refuse('The password is too long.', `Use at most ${PASSWORD_BYTES_MAX} bytes.`)
  }
  if (password.toLowerCase() === name)
    refuse('The password is the name.', 'Choose another password.')
}

/** One name from one client network (/32, /64). */
function lockKey(name: string, clientIp: string): string {
  const network = isIPv6(clientIp) ? expand(clientIp).slice(0, 4).join(':') : clientIp
  return `${name} ${network}`
}

/** The eight groups of an IPv6 address. */
function expand(address: string): readonly string[] {
  const [head = '', tail] = (address.split('%')[0] ?? '').split('::')
  const first = head === '' ? [] : head.split(':')
  const last = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - first.length - last.length)
  return [...first, ...Array<string>(zeros).fill('0'), ...last].map((group) =>
    group.replace(/^0+(?=.)/, ''),
  )
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

function inWords(waitMs: number): string {
  const seconds = Math.ceil(waitMs / 1_000)
  return seconds < 120 ? `${seconds} s` : `${Math.ceil(seconds / 60)} min`
}
