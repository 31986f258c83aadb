/** `--limit` and `--cursor` of the lists. */
import { LIST_MAX } from '../base/limits.ts'
import type { List } from './api.ts'
import type { Call } from './parse.ts'
import { optionOf, UsageError, type World } from './world.ts'

/** The limit as the API takes it; undefined when not given. @throws UsageError */
export function limitOf(call: Call): string | undefined {
  const text = optionOf(call, '--limit')
  if (text === undefined) return undefined
  const limit = Number(text)
  if (Number.isInteger(limit) && limit >= 1 && limit <= LIST_MAX) return text
  throw new UsageError('limit', `--limit "${text}" is out of range.`, `Give 1 to ${LIST_MAX}.`)
}

/** Says on stderr how to see what a list left out; stdout holds the rows only. */
export function hintMore(world: World, list: List<unknown>): void {
  if (list.cursor === null || list.rows.length === 0) return
  world.err(`${list.rows.length} of ${list.total}; more: --cursor ${list.cursor}\n`)
}
