/** `config get|set|export|history|undo`: the settings of the gateway. */
import type { SettingValue } from '../config/schema.ts'
import { Api, type List, pathOf } from './api.ts'
import { limitOf } from './page.ts'
import { ago, jsonText, plain, table } from './print.ts'
import { dataDirOf, type Run } from './world.ts'

/** As GET /api/v1/settings gives it. */
type SettingRow = {
  readonly key: string
  readonly value: SettingValue
  readonly initial: SettingValue
  readonly changedBy: string | null
  readonly changedAt: string | null
}

/** As GET /api/v1/changes gives it. */
type ChangeRow = {
  readonly id: string
  readonly at: string
  readonly by: string
  readonly key: string
  readonly before: string | null
  readonly after: string | null
}

export const getConfig: Run = async (call, world) => {
  const [key] = call.args
  const api = new Api(dataDirOf(call))
  if (key === undefined) {
    const { rows } = await api.call<List<SettingRow>>('GET', '/settings')
    const lines = rows.map((row) => [row.key, wordsOf(row.value), row.changedBy ?? 'default'])
    await world.out(call.json ? jsonText(rows) : table(world, ['SETTING', 'VALUE', 'BY'], lines))
    return 0
  }
  const row = await api.call<SettingRow>('GET', pathOf(['settings', key]))
  await world.out(call.json ? jsonText(row) : `${wordsOf(row.value)}\n`)
  return 0
}

/** The node answers when the value is in force here. It reads the text as its setting needs it. */
export const setConfig: Run = async (call, world) => {
  const [key = '', value = ''] = call.args
  const api = new Api(dataDirOf(call))
  const row = await api.call<SettingRow>('PUT', pathOf(['settings', key]), { value })
  await world.out(call.json ? jsonText(row) : `${row.key} is ${wordsOf(row.value)}.\n`)
  return 0
}

/** Everything that an operator may set, secrets aside: settings and domains. Always JSON. */
export const exportConfig: Run = async (call, world) => {
  const api = new Api(dataDirOf(call))
  const [settings, domains] = await Promise.all([
    api.call<List<SettingRow>>('GET', '/settings'),
    api.call<List<object>>('GET', '/domains'),
  ])
  const values = Object.fromEntries(settings.rows.map(({ key, value }) => [key, value]))
  await world.out(jsonText({ settings: values, domains: domains.rows }))
  return 0
}

export const listChanges: Run = async (call, world) => {
  const path = pathOf(['changes'], { limit: limitOf(call) })
  const { rows } = await new Api(dataDirOf(call)).call<List<ChangeRow>>('GET', path)
  const lines = rows.map((row) => [
    row.id,
    `${ago(world, row.at)} ago`,
    row.by,
    spoken(row.key),
    `${row.before ?? '(none)'} > ${row.after ?? '(none)'}`,
  ])
  const head = ['CHANGE', 'WHEN', 'BY', 'WHAT', 'FROM > TO']
  await world.out(call.json ? jsonText(rows) : table(world, head, lines))
  return 0
}

export const undoChange: Run = async (call, world) => {
  const [id = ''] = call.args
  const path = pathOf(['changes', id, 'undo'])
  const answer = await new Api(dataDirOf(call)).call<{ readonly key?: string }>('POST', path)
  const what = spoken(answer?.key ?? `Change ${id}`)
  const done = { id, key: answer?.key ?? null, undone: true }
  await world.out(call.json ? jsonText(done) : `${plain(what)} is as it was before.\n`)
  return 0
}

/** A key of the history as `config get` takes it: `policy.hold`. */
function spoken(key: string): string {
  return key.replace(/^setting\//, '')
}

/** A value as `config set` reads it again. */
function wordsOf(value: SettingValue): string {
  return Array.isArray(value) ? value.join(',') : String(value)
}
