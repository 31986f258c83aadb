/** `operator add|password|list|remove`: who may sign in to the web pages. */
import { Api, type List, pathOf } from './api.ts'
import type { Call } from './parse.ts'
import { ago, jsonText, table } from './print.ts'
import { dataDirOf, hasFlag, optionOf, type Run, UsageError, type World } from './world.ts'

/** As GET /api/v1/operators gives it. */
type OperatorRow = {
  readonly name: string
  readonly role: string
  readonly addedAt: string
  readonly lastSeenAt: string | null
}

export const addOperator: Run = async (call, world) => {
  const [name = ''] = call.args
  const dataDir = dataDirOf(call)
  const password = await passwordOf(call, world)
  const body = { name, password, role: optionOf(call, '--role') ?? 'admin' }
  await new Api(dataDir).call('POST', '/operators', body)
  const done = { name, role: body.role }
  await world.out(call.json ? jsonText(done) : `${name} may sign in as ${body.role}.\n`)
  return 0
}

export const changePassword: Run = async (call, world) => {
  const [name = ''] = call.args
  const dataDir = dataDirOf(call)
  const password = await passwordOf(call, world)
  await new Api(dataDir).call('PUT', pathOf(['operators', name, 'password']), { password })
  const done = `${name} has another password, and is signed out everywhere.\n`
  await world.out(call.json ? jsonText({ name, changed: true }) : done)
  return 0
}

/** By standard input only: a command line is read by every user of a host. @throws UsageError */
async function passwordOf(call: Call, world: World): Promise<string> {
  if (hasFlag(call, '--password-stdin')) {
    return (await world.input()).replace(/\r?\n[\s\S]*$/, '')
  }
  const command = `postern ${call.command.path} ${call.args[0] ?? 'NAME'} --password-stdin`
  throw new UsageError(
    'password',
    'The password comes by standard input.',
    `Try: ${command}, and type it on one line.`,
  )
}

export const listOperators: Run = async (call, world) => {
  const { rows } = await new Api(dataDirOf(call)).call<List<OperatorRow>>('GET', '/operators')
  if (call.json) await world.out(jsonText(rows))
  else if (rows.length === 0) await world.out('No operators: the set-up is still open.\n')
  else {
    const lines = rows.map((row) => [
      row.name,
      row.role,
      row.lastSeenAt === null ? 'never' : `${ago(world, row.lastSeenAt)} ago`,
    ])
    await world.out(table(world, ['OPERATOR', 'ROLE', 'LAST SEEN'], lines))
  }
  return 0
}

export const removeOperator: Run = async (call, world) => {
  const [name = ''] = call.args
  await new Api(dataDirOf(call)).call('DELETE', pathOf(['operators', name]))
  await world.out(call.json ? jsonText({ name, removed: true }) : `${name} is removed.\n`)
  return 0
}
