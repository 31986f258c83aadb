/** One route of the API as a row of a table: what it is called with, what it answers. */
import { type TSchema, t } from 'elysia'
import type { Author } from '../src/admin/contract.ts'
import { RefusalError } from '../src/base/errors.ts'
import { LIST_MAX } from '../src/base/limits.ts'
import type { Visit } from './guard.ts'

/** What a route is given: everything as text or parsed JSON, as its schemas let through. */
export type Call = {
  readonly params: Readonly<Record<string, string>>
  readonly query: Readonly<Record<string, string | undefined>>
  readonly body: Readonly<Record<string, unknown>>
  readonly visit: Visit
  /** @throws RefusalError unauthenticated */
  readonly author: () => Author
}

export type Route = {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** Below /api/v1, with `:name` for parameters. */
  readonly path: string
  readonly summary: string
  readonly tag: string
  readonly params?: TSchema
  readonly query?: TSchema
  readonly body?: TSchema
  /** What 200 holds; null when it is not JSON. */
  readonly answer: TSchema | null
  /** Other statuses than 200 and the refusals that every route may give. */
  readonly refuses?: readonly number[]
  /** 202 with the same answer: noted, and done later. */
  readonly accepts?: true
  /** Nobody has to be signed in. */
  readonly open?: boolean
  /** A Response goes out as it is; anything else as JSON. */
  readonly run: (call: Call) => unknown
}

/** `?limit=` as a number, 1..1000; `otherwise` when it is not given. @throws RefusalError */
export function limitOf(text: string | undefined, otherwise = 100): number {
  if (text === undefined) return otherwise
  const limit = /^\d{1,6}$/.test(text) ? Number(text) : 0
  if (limit >= 1 && limit <= LIST_MAX) return limit
  throw new RefusalError(
    'invalid',
    'limit',
    `limit "${text.slice(0, 20)}" is out of range.`,
    `Give 1 to ${LIST_MAX}.`,
  )
}

export const TEXT = (description: string, maxLength = 1_000) => t.String({ description, maxLength })

/** A field of the body; empty when it is not there. */
export function text(call: Call, field: string): string {
  const value = call.body[field]
  return typeof value === 'string' ? value : ''
}

/** As `text`; undefined when it is not there. */
export function optional(call: Call, field: string): string | undefined {
  const value = call.body[field]
  return typeof value === 'string' ? value : undefined
}

export function param(call: Call, name: string): string {
  return call.params[name] ?? ''
}
