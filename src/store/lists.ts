/**
 * The allow and the block list: an entry is a cell of its own. Added on one node and removed on
 * another at the same time, a block stays and an allowance goes: both fail closed.
 */
import { RefusalError } from '../base/errors.ts'
import { forceOf } from '../config/cells.ts'
import { wallMsOf } from '../config/stamp.ts'
import { type ListKind, type ListName, readListEntry, readListName } from '../config/validate.ts'
import type { Changes } from './changes.ts'
import type { SharedRows } from './shared.ts'

/** Entries of both lists together. */
const LIST_ENTRIES_MAX = 10_000
const NOTE_CHARS_MAX = 200

export type Entry = {
  readonly list: ListName
  readonly kind: ListKind
  /** As `readListEntry` gives it. */
  readonly value: string
  readonly note: string
  readonly by: string
  readonly addedMs: number
}

export class Lists {
  readonly #rows: SharedRows
  readonly #changes: Changes

  constructor(rows: SharedRows, changes: Changes) {
    this.#rows = rows
    this.#changes = changes
  }

  /** Newest first. @throws StoreError */
  entries(list: ListName): readonly Entry[] {
    return this.#rows
      .list('list', `${list}/`)
      .flatMap(({ key }) => this.#entry(key) ?? [])
      .sort((a, b) => b.addedMs - a.addedMs || (a.value < b.value ? -1 : 1))
  }

  /**
   * An entry that is there already gets the note. In force for the next mail.
   * @throws RefusalError invalid, with the field; StoreError
   */
  add(
    author: string,
    input: {
      readonly list: string
      readonly kind: string
      readonly value: string
      readonly note: string
    },
  ): Entry {
    const list = readListName(input.list)
    const { kind, value } = readListEntry(input.kind, input.value)
    const note = readNote(input.note)
    const key = `${list}/${kind}/${value}`
    const before = this.#entry(key)
    if (before === null) this.#refuseTooMany()
    else if (before.note === note) return before
    const text = JSON.stringify({ note })
    const old = before === null ? null : JSON.stringify({ note: before.note })
    this.#changes.write(
      author,
      [{ kind: 'list', key, value: text }],
      [{ key: `list/${key}`, before: old, after: text }],
    )
    return this.#entry(key) ?? { list, kind, value, note, by: author, addedMs: 0 }
  }

  /** @throws RefusalError notFound, StoreError */
  remove(author: string, rawList: string, rawKind: string, rawValue: string): void {
    const list = readListName(rawList)
    const { kind, value } = readListEntry(rawKind, rawValue)
    const key = `${list}/${kind}/${value}`
    const before = this.#entry(key)
    if (before === null) {
      throw new RefusalError(
        'notFound',
        'value',
        `${value} is not on the ${list} list.`,
        'See the list for the entries that there are.',
      )
    }
    this.#changes.write(
      author,
      [{ kind: 'list', key, value: null }],
      [{ key: `list/${key}`, before: JSON.stringify({ note: before.note }), after: null }],
    )
  }

  #entry(key: string): Entry | null {
    const [list, kind, ...rest] = key.split('/')
    if (list !== 'allow' && list !== 'block') return null
    if (kind !== 'ip' && kind !== 'sender') return null
    const cell = this.#rows.cell('list', key)
    if (cell === null) return null
    const { value, author, stamp } = forceOf('list', key, cell)
    if (value === null) return null
    return {
      list,
      kind,
      value: rest.join('/'),
      note: noteOf(value),
      by: author,
      addedMs: wallMsOf(stamp),
    }
  }

  #refuseTooMany(): void {
    if (this.#changes.listedCount < LIST_ENTRIES_MAX) return
    throw new RefusalError(
      'invalid',
      'value',
      `There are already ${LIST_ENTRIES_MAX} entries.`,
      'Remove some that are not used any more, or enter a network for many addresses.',
    )
  }
}

function readNote(raw: string): string {
  const note = raw.replace(/[\p{Cc}\s]+/gu, ' ').trim()
  if (note.length <= NOTE_CHARS_MAX) return note
  throw new RefusalError(
    'invalid',
    'note',
    'The note is too long.',
    `Use at most ${NOTE_CHARS_MAX} characters.`,
  )
}

function noteOf(text: string): string {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== 'object' || value === null) return ''
    const { note } = value as { readonly note?: unknown }
    return typeof note === 'string' ? note : ''
  } catch {
    return ''
  }
}
