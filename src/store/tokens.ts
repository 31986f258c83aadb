/**
 * Tokens by which scripts use the API, on every node. The token itself is nowhere: only the hash
 * of its secret is kept. Removed on one node while another did not know: it is removed.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { Clock } from '../base/clock.ts'
import { RefusalError } from '../base/errors.ts'
import { type Random, randomHex, randomToken } from '../base/random.ts'
import { forceOf } from '../config/cells.ts'
import type { Audit } from './audit.ts'
import type { Changes } from './changes.ts'
import { type Role, readRole } from './operators.ts'
import type { SharedRows } from './shared.ts'

const TOKENS_MAX = 256
const DAYS_MAX = 3_650
const DAY_MS = 86_400_000
/** `pat1_`, 16 hex digits of the id, 32 bytes of secret in base64url. */
const FORM = /^pat1_([0-9a-f]{16})([A-Za-z0-9_-]{43})$/

export type ApiToken = {
  readonly id: string
  readonly name: string
  readonly role: Role
  readonly by: string
  readonly addedMs: number
  /** Null: never. */
  readonly expiresMs: number | null
}
type Stored = ApiToken & { readonly hash: string }

export class ApiTokens {
  readonly #rows: SharedRows
  readonly #changes: Changes
  readonly #audit: Audit
  readonly #clock: Clock
  readonly #random: Random
  /** By id. */
  readonly #known = new Map<string, Stored>()

  /** Before `rows.start`; then `load`. */
  constructor(
    rows: SharedRows,
    changes: Changes,
    audit: Audit,
    deps: { readonly clock: Clock; readonly random: Random },
  ) {
    this.#rows = rows
    this.#changes = changes
    this.#audit = audit
    this.#clock = deps.clock
    this.#random = deps.random
    rows.onChange('apitoken', ({ keys }) => {
      for (const key of keys) this.#look(key)
    })
  }

  /** @throws StoreError */
  load(): void {
    for (const { key } of this.#rows.list('apitoken')) this.#look(key)
  }

  /** Newest first; expired ones too, until somebody removes them. */
  list(): readonly ApiToken[] {
    return [...this.#known.values()]
      .map(({ hash: _, ...token }) => token)
      .sort((a, b) => b.addedMs - a.addedMs || (a.id < b.id ? -1 : 1))
  }

  /** `days` null: never expires. @throws RefusalError invalid, with the field; StoreError */
  add(
    author: string,
    input: { readonly name: string; readonly role: string; readonly days: number | null },
  ): { readonly token: string; readonly row: ApiToken } {
    this.#changes.mustBeWritable()
    const name = readTokenName(input.name)
    const role = readRole(input.role)
    const days = readDays(input.days)
    this.#refuseTooMany()
    const addedMs = this.#clock.wallMs()
    const id = randomHex(this.#random, 8)
    const secret = randomToken(this.#random, 32)
    const expiresMs = days === null ? null : addedMs + days * DAY_MS
    const row: ApiToken = { id, name, role, by: author, addedMs, expiresMs }
    const { id: _, ...value } = { ...row, hash: hashOf(secret).toString('base64url') }
    this.#rows.transact(() => {
      this.#rows.write('apitoken', id, JSON.stringify(value), author)
      this.#changes.note(author, `apitoken/${id}`, null, JSON.stringify({ name, role }))
      this.#audit.write(author, 'apitoken.add', id, `${name}, ${role}`)
    })
    return { token: `pat1_${id}${secret}`, row }
  }

  /** @throws RefusalError notFound, StoreError */
  remove(author: string, id: string): void {
    this.#changes.mustBeWritable()
    const known = this.#known.get(id)
    if (known === undefined) {
      throw new RefusalError(
        'notFound',
        'id',
        `There is no API token ${JSON.stringify(id.slice(0, 40))}.`,
        'See the list of tokens for those that there are.',
      )
    }
    const { name, role } = known
    this.#rows.transact(() => {
      this.#rows.write('apitoken', id, null, author)
      this.#changes.note(author, `apitoken/${id}`, JSON.stringify({ name, role }), null)
      this.#audit.write(author, 'apitoken.remove', id, name)
    })
  }

  /** Null: no such token, expired or removed. Takes the same time for every wrong secret. */
  authenticate(text: string): { readonly name: string; readonly role: Role } | null {
    const [, id = '', secret = ''] = FORM.exec(text) ?? []
    const known = this.#known.get(id)
    if (known === undefined) return null
    const isRight = timingSafeEqual(hashOf(secret), Buffer.from(known.hash, 'base64url'))
    if (!isRight || (known.expiresMs !== null && this.#clock.wallMs() >= known.expiresMs))
      return null
    // With a colon, which no operator has in their name.
    return { name: `token:${known.name}`, role: known.role }
  }

  #look(id: string): void {
    const cell = this.#rows.cell('apitoken', id)
    const value = cell === null ? null : forceOf('apitoken', id, cell).value
    const token = value === null ? null : readStored(id, value)
    if (token === null) this.#known.delete(id)
    else this.#known.set(id, token)
  }

  #refuseTooMany(): void {
    if (this.#known.size < TOKENS_MAX) return
    throw new RefusalError(
      'invalid',
      'name',
      `There are already ${TOKENS_MAX} API tokens.`,
      'Remove one that is not used any more.',
    )
  }
}

function hashOf(secret: string): Buffer {
  return createHash('sha256').update(secret).digest()
}

function readTokenName(raw: string): string {
  const name = raw.trim()
  if (/^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$/.test(name)) return name
  throw new RefusalError(
    'invalid',
    'name',
    `${JSON.stringify(raw.slice(0, 64))} is not a name for a token.`,
    'Say what it is for: 1 to 64 letters, digits and . _ @ + -, like backup-script.',
  )
}

function readDays(days: number | null): number | null {
  if (days === null || (Number.isInteger(days) && days >= 1 && days <= DAYS_MAX)) return days
  throw new RefusalError(
    'invalid',
    'days',
    `${days} is not a number of days.`,
    `Enter 1 to ${DAYS_MAX}, or nothing for a token that does not expire.`,
  )
}

/** A cell that came from a peer; null: not one that this version can read. */
function readStored(id: string, text: string): Stored | null {
  try {
    const { name, role, hash, by, addedMs, expiresMs } = JSON.parse(text) as Stored
    const isWhole =
      typeof name === 'string' &&
      (role === 'admin' || role === 'viewer') &&
      typeof hash === 'string' &&
      Buffer.from(hash, 'base64url').length === 32 &&
      typeof by === 'string' &&
      Number.isSafeInteger(addedMs) &&
      (expiresMs === null || Number.isSafeInteger(expiresMs))
    return isWhole ? { id, name, role, hash, by, addedMs, expiresMs } : null
  } catch {
    return null
  }
}
