/** `rule`, `score`, `map`, `yara`: what an operator adds to detection. */
import { Api, type List, pathOf } from './api.ts'
import type { Call } from './parse.ts'
import { ago, jsonText, table } from './print.ts'
import { dataDirOf, hasFlag, optionOf, type Run, UsageError, type World } from './world.ts'

type RuleRow = {
  readonly name: string
  readonly score: number
  readonly on: boolean
  readonly describe: string
  readonly look: Readonly<Record<string, string>>
  readonly by: string
  readonly changedAt: string
}
type ScoreRow = {
  readonly rule: string
  readonly initial: number | null
  readonly score: number | null
  readonly says: string
  readonly own: boolean
}
type MapRow = {
  readonly name: string
  readonly entries: readonly string[]
  readonly by: string
  readonly changedAt: string
}
type YaraRow = Omit<MapRow, 'entries'> & { readonly source: string }

export const listRules: Run = async (call, world) => {
  const rows = await rowsOf<RuleRow>(call, ['rules'])
  if (call.json) await world.out(jsonText(rows))
  else if (rows.length === 0) await world.out('No rules of your own.\n')
  else {
    const lines = rows.map(({ name, score, on, look, by }) => [
      name,
      on ? String(score) : `${score}, off`,
      wordsOf(look),
      by,
    ])
    await world.out(table(world, ['RULE', 'SCORE', 'LOOKS AT', 'BY'], lines))
  }
  return 0
}

function wordsOf(look: Readonly<Record<string, string>>): string {
  const { kind = '', field, pattern, expression, map, of } = look
  if (kind === 'header') return `header ${field}: ${pattern}`
  if (kind === 'composite') return `if ${expression}`
  if (kind === 'map') return `${of} in the map ${map}`
  return `${kind}: ${pattern}`
}

export const setRule: Run = async (call, world) => {
  const [name = ''] = call.args
  const describe = optionOf(call, '--describe')
  const body = {
    score: scoreOf(optionOf(call, '--score') ?? ''),
    on: !hasFlag(call, '--off'),
    ...(describe === undefined ? {} : { describe }),
    look: lookOf(call),
  }
  await api(call).call('PUT', pathOf(['rules', name]), body)
  return await done(call, world, name, 'is in force.')
}

function lookOf(call: Call): object {
  const given = ['--header', '--body', '--link', '--raw', '--if', '--map'].filter(
    (name) => optionOf(call, name) !== undefined,
  )
  const [option] = given
  if (option === undefined || given.length > 1) {
    throw new UsageError(
      'kind',
      'A rule looks at one thing.',
      'Give one of --header, --body, --link, --raw, --if or --map.',
    )
  }
  const value = optionOf(call, option) ?? ''
  switch (option) {
    case '--header': {
      const colon = value.indexOf(':')
      if (colon > 0) {
        return {
          kind: 'header',
          field: value.slice(0, colon),
          pattern: value.slice(colon + 1).trim(),
        }
      }
      throw new UsageError(
        'header',
        '--header needs a field and a pattern.',
        'Give Subject:PATTERN.',
      )
    }
    case '--if':
      return { kind: 'composite', expression: value }
    case '--map':
      return { kind: 'map', map: value, of: optionOf(call, '--of') ?? '' }
    default:
      return { kind: option.slice(2), pattern: value }
  }
}

export const listScores: Run = async (call, world) => {
  const [text = ''] = call.args
  const wanted = text.toLowerCase()
  const rows = (await rowsOf<ScoreRow>(call, ['detection', 'table'])).filter(({ rule, says }) =>
    `${rule} ${says}`.toLowerCase().includes(wanted),
  )
  if (call.json) await world.out(jsonText(rows))
  else {
    const lines = rows.map(({ rule, initial, score, says }) => [
      rule,
      score === null ? String(initial ?? '') : `${score} (not ${initial ?? 'known'})`,
      says,
    ])
    await world.out(table(world, ['RULE', 'SCORE', 'SAYS'], lines))
  }
  return 0
}

export const setScore: Run = async (call, world) => {
  const [rule = '', score = ''] = call.args
  await api(call).call('PUT', pathOf(['scores', rule]), { score: scoreOf(score) })
  return await done(call, world, rule, `weighs ${score}.`)
}

function scoreOf(text: string): number {
  if (text.trim() !== '' && Number.isFinite(Number(text))) return Number(text)
  throw new UsageError('score', `"${text}" is no score.`, 'Give a number, like 2.5.')
}

export const listMaps: Run = async (call, world) => {
  const rows = await rowsOf<MapRow>(call, ['maps'])
  if (call.json) await world.out(jsonText(rows))
  else if (rows.length === 0) await world.out('No maps.\n')
  else {
    const lines = rows.map(({ name, entries, by, changedAt }) => [
      name,
      String(entries.length),
      by,
      `${ago(world, changedAt)} ago`,
    ])
    await world.out(table(world, ['MAP', 'ENTRIES', 'BY', 'CHANGED'], lines))
  }
  return 0
}

export const listYara: Run = async (call, world) => {
  const rows = await rowsOf<YaraRow>(call, ['yara'])
  if (call.json) await world.out(jsonText(rows))
  else if (rows.length === 0) await world.out('No YARA sources.\n')
  else {
    const lines = rows.map(({ name, by, changedAt }) => [name, by, `${ago(world, changedAt)} ago`])
    await world.out(table(world, ['SOURCE', 'BY', 'CHANGED'], lines))
  }
  return 0
}

const show =
  <Row extends { readonly name: string }>(path: string, text: (row: Row) => string): Run =>
  async (call, world) => {
    const [name = ''] = call.args
    const row = (await rowsOf<Row>(call, [path])).find((each) => each.name === name)
    if (row === undefined) {
      throw new UsageError(
        'name',
        `There is no "${name}".`,
        'See the list for those that there are.',
      )
    }
    await world.out(call.json ? jsonText(row) : text(row))
    return 0
  }

export const showMap = show<MapRow>('maps', ({ entries }) =>
  entries.map((each) => `${each}\n`).join(''),
)
export const showYara = show<YaraRow>('yara', ({ source }) => `${source.trimEnd()}\n`)

export const setMap: Run = async (call, world) => {
  const [name = ''] = call.args
  const entries = (await world.input()).split(/\r?\n/)
  await api(call).call('PUT', pathOf(['maps', name]), { entries })
  return await done(call, world, name, 'is in force.')
}

export const setYara: Run = async (call, world) => {
  const [name = ''] = call.args
  await api(call).call('PUT', pathOf(['yara', name]), { source: await world.input() })
  return await done(call, world, name, 'is in force.')
}

const remove =
  (path: string, words: string): Run =>
  async (call, world) => {
    const [name = ''] = call.args
    await api(call).call('DELETE', pathOf([path, name]))
    return await done(call, world, name, words)
  }

export const removeRule = remove('rules', 'is removed.')
export const resetScore = remove('scores', 'weighs what it does by itself.')
export const removeMap = remove('maps', 'is removed.')
export const removeYara = remove('yara', 'is removed.')

function api(call: Call): Api {
  return new Api(dataDirOf(call))
}

async function rowsOf<Row>(call: Call, path: readonly string[]): Promise<readonly Row[]> {
  return (await api(call).call<List<Row>>('GET', pathOf(path))).rows
}

async function done(call: Call, world: World, name: string, words: string): Promise<number> {
  await world.out(call.json ? jsonText({ name, done: true }) : `${name} ${words}\n`)
  return 0
}
