/** `conflict list|keep`: what was set twice while nodes were apart. */
import { Api, type List } from './api.ts'
import { ago, bold, jsonText, plain } from './print.ts'
import { dataDirOf, type Run } from './world.ts'

/** As GET /api/v1/conflicts gives it; the side in force comes first. */
type ConflictRow = {
  readonly key: string
  readonly sides: readonly {
    readonly id: string
    readonly value: string | null
    readonly by: string
    readonly node: string
    readonly at: string
  }[]
}

export const listConflicts: Run = async (call, world) => {
  const { rows } = await new Api(dataDirOf(call)).call<List<ConflictRow>>('GET', '/conflicts')
  if (call.json) {
    await world.out(jsonText(rows))
    return 0
  }
  if (rows.length === 0) await world.out('No conflicts.\n')
  for (const { key, sides } of rows) {
    const lines = sides.map(({ id, value, by, node, at }, place) => {
      const said = `${id}  ${value ?? '(removed)'}  by ${by} on ${node}, ${ago(world, at)} ago`
      return `  ${plain(said)}${place === 0 ? '  (in force)' : ''}\n`
    })
    await world.out(`${bold(world, plain(key))}\n${lines.join('')}`)
  }
  return 0
}

export const keepSide: Run = async (call, world) => {
  const [key = '', side = ''] = call.args
  await new Api(dataDirOf(call)).call('POST', '/conflicts/keep', { key, side })
  await world.out(call.json ? jsonText({ key, side, kept: true }) : `${key}: ${side} is kept.\n`)
  return 0
}
