/** `token add|list|remove`: API tokens for scripts. */
import { Api, type List, pathOf } from './api.ts'
import { countOf } from './join.ts'
import { ago, jsonText, table } from './print.ts'
import { dataDirOf, optionOf, type Run } from './world.ts'

/** As GET /api/v1/tokens gives it. */
type TokenRow = {
  readonly id: string
  readonly name: string
  readonly role: string
  readonly by: string
  readonly addedAt: string
  readonly expiresAt: string | null
}

/** The token alone on standard output, so that a script can take it. */
export const addToken: Run = async (call, world) => {
  const [name = ''] = call.args
  const days = optionOf(call, '--days')
  const role = optionOf(call, '--role') ?? 'viewer'
  const body = { name, role, ...(days === undefined ? {} : { days: countOf('days', days) }) }
  type Answer = { readonly token: string; readonly row: TokenRow }
  const made = await new Api(dataDirOf(call)).call<Answer>('POST', '/tokens', body)
  if (call.json) await world.out(jsonText(made))
  else {
    await world.out(`${made.token}\n`)
    world.err(`It is shown only now. Revoke it with "postern token remove ${made.row.id}".\n`)
  }
  return 0
}

export const listTokens: Run = async (call, world) => {
  const { rows } = await new Api(dataDirOf(call)).call<List<TokenRow>>('GET', '/tokens')
  if (call.json) await world.out(jsonText(rows))
  else if (rows.length === 0) await world.out('No API tokens.\n')
  else {
    const lines = rows.map((row) => [
      row.id,
      row.name,
      row.role,
      row.by,
      `${ago(world, row.addedAt)} ago`,
      row.expiresAt ?? 'never',
    ])
    await world.out(table(world, ['TOKEN', 'NAME', 'ROLE', 'BY', 'ADDED', 'EXPIRES'], lines))
  }
  return 0
}

export const removeToken: Run = async (call, world) => {
  const [id = ''] = call.args
  await new Api(dataDirOf(call)).call('DELETE', pathOf(['tokens', id]))
  await world.out(call.json ? jsonText({ id, removed: true }) : `The token ${id} is revoked.\n`)
  return 0
}
