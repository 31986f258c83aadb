/** `allow` and `block`: `add|list|remove` on the two lists of clients and senders. */
import { Api, type List, pathOf } from './api.ts'
import { ago, jsonText, table } from './print.ts'
import { dataDirOf, optionOf, type Run } from './world.ts'

type Name = 'allow' | 'block'

/** As GET /api/v1/lists/LIST gives it. */
type EntryRow = {
  readonly list: string
  readonly kind: string
  readonly value: string
  readonly note: string
  readonly by: string
  readonly addedAt: string
}

/** Only a sender has an @. */
function kindOf(value: string): 'ip' | 'sender' {
  return value.includes('@') ? 'sender' : 'ip'
}

const add =
  (list: Name): Run =>
  async (call, world) => {
    const [value = ''] = call.args
    const note = optionOf(call, '--note')
    const body = { kind: kindOf(value), value, ...(note === undefined ? {} : { note }) }
    const row = await new Api(dataDirOf(call)).call<EntryRow>('POST', pathOf(['lists', list]), body)
    await world.out(call.json ? jsonText(row) : `${row.value} is on the ${list} list.\n`)
    return 0
  }

const remove =
  (list: Name): Run =>
  async (call, world) => {
    const [value = ''] = call.args
    const path = pathOf(['lists', list, kindOf(value), value])
    await new Api(dataDirOf(call)).call('DELETE', path)
    const done = { list, value, removed: true }
    await world.out(call.json ? jsonText(done) : `${value} is off the ${list} list.\n`)
    return 0
  }

const show =
  (list: Name): Run =>
  async (call, world) => {
    const path = pathOf(['lists', list])
    const { rows } = await new Api(dataDirOf(call)).call<List<EntryRow>>('GET', path)
    if (call.json) await world.out(jsonText(rows))
    else if (rows.length === 0) await world.out(`The ${list} list is empty.\n`)
    else {
      const lines = rows.map(({ kind, value, by, addedAt, note }) => [
        value,
        kind,
        by,
        `${ago(world, addedAt)} ago`,
        note,
      ])
      await world.out(table(world, ['ENTRY', 'KIND', 'BY', 'ADDED', 'NOTE'], lines))
    }
    return 0
  }

export const addAllowed = add('allow')
export const removeAllowed = remove('allow')
export const listAllowed = show('allow')
export const addBlocked = add('block')
export const removeBlocked = remove('block')
export const listBlocked = show('block')
