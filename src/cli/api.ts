/** The documented HTTP API of the local node, over DIR/control.sock. */
import { join } from 'node:path'
import { messageOf, type RefusalCode, RefusalError } from '../base/errors.ts'

/** Longest wait for an answer: a release is answered when it is in the queue. */
const ANSWER_MS_MAX = 60_000

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'

export type Query = Readonly<Record<string, string | undefined>>

/** One page of a list, as every list of the API answers. */
export type List<Row> = {
  readonly rows: readonly Row[]
  readonly total: number
  readonly cursor: string | null
}

export class Api {
  readonly #dataDir: string

  constructor(dataDir: string) {
    this.#dataDir = dataDir
  }

  /**
   * The parsed answer, whose shape the API documents; undefined when it has no content.
   * @throws RefusalError as the node refused, or when no node runs on the directory
   */
  async call<Answer>(method: Method, path: string, body?: unknown): Promise<Answer> {
    const response = await this.#fetch(method, path, body)
    const text = await response.text()
    if (!response.ok) throw refusalOf(response.status, text)
    return (text === '' ? undefined : JSON.parse(text)) as Answer
  }

  /** The bytes of an answer that is not JSON. Errors as `call`. */
  async bytes(path: string): Promise<ReadableStream<Uint8Array>> {
    const response = await this.#fetch('GET', path)
    if (!response.ok) throw refusalOf(response.status, await response.text())
    return response.body ?? new Blob([]).stream()
  }

  async #fetch(method: Method, path: string, body?: unknown): Promise<Response> {
    try {
      return await fetch(`http://localhost/api/v1${path}`, {
        method,
        unix: join(this.#dataDir, 'control.sock'),
        signal: AbortSignal.timeout(ANSWER_MS_MAX),
        ...(body === undefined
          ? {}
          : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
      })
    } catch (error) {
      throw this.#unreachable(error)
    }
  }

  #unreachable(error: unknown): RefusalError {
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    const name = error instanceof Error ? error.name : ''
    if (name === 'TimeoutError') {
      return new RefusalError(
        'unavailable',
        null,
        `The node on ${this.#dataDir} did not answer in ${ANSWER_MS_MAX / 1_000} s.`,
        'Look at its log; "postern doctor" may say more.',
      )
    }
    if (code === 'EACCES' || code === 'EPERM') {
      return new RefusalError(
        'forbidden',
        'data',
        `${this.#dataDir}/control.sock may not be opened by this user.`,
        'Run the command as the user of the node, or as root.',
      )
    }
    return new RefusalError(
      'unavailable',
      'data',
      `no node runs on ${this.#dataDir}.`,
      `Start one with "postern serve --data ${this.#dataDir}".${hint(code, error)}`,
    )
  }
}

/** What failed, when it is not simply that nobody listens. */
function hint(code: string, error: unknown): string {
  const usual = [
    'ENOENT',
    'ECONNREFUSED',
    'FailedToOpenSocket',
    'ConnectionRefused',
    'ENOTDIR',
    'ENAMETOOLONG',
  ]
  return usual.includes(code) ? '' : ` (${messageOf(error)})`
}

/** A path with its words escaped and its query; undefined values are left out. */
export function pathOf(words: readonly string[], query: Query = {}): string {
  const path = words.map((word) => `/${encodeURIComponent(word)}`).join('')
  const pairs = Object.entries(query).filter(
    (pair): pair is [string, string] => pair[1] !== undefined,
  )
  return pairs.length === 0 ? path : `${path}?${new URLSearchParams(pairs)}`
}

const CODES: ReadonlySet<string> = new Set([
  'invalid',
  'notFound',
  'conflict',
  'unauthenticated',
  'forbidden',
  'locked',
  'unavailable',
  'doubtful',
] satisfies RefusalCode[])

function refusalOf(status: number, text: string): RefusalError {
  const { code, field, message, remedy } = errorOf(text)
  return new RefusalError(
    code !== undefined && CODES.has(code) ? (code as RefusalCode) : 'unavailable',
    field ?? null,
    message ?? `The node answered ${status}.`,
    remedy ?? 'Look at its log.',
  )
}

type WireError = {
  readonly code?: string
  readonly field?: string | null
  readonly message?: string
  readonly remedy?: string
}

function errorOf(text: string): WireError {
  try {
    const answer = JSON.parse(text) as { readonly error?: WireError }
    return answer.error ?? {}
  } catch {
    return {}
  }
}
