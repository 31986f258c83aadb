/** `dkim list|add|check|retire|remove`: keys that sign mail of our domains. */
import { Api, type List, pathOf } from './api.ts'
import type { Call } from './parse.ts'
import { facts, jsonText, table } from './print.ts'
import { dataDirOf, optionOf, type Run, type World } from './world.ts'

/** As GET /api/v1/domains/DOMAIN/dkim gives it. */
type KeyRow = {
  readonly domain: string
  readonly selector: string
  readonly algorithm: string
  readonly state: string
  readonly recordName: string
  readonly record: string
  /** Of a key that signs, what the DNS has instead of its record: a sentence. */
  readonly trouble: string | null
}

export const listKeys: Run = async (call, world) => {
  const [domain = ''] = call.args
  const { rows } = await api(call).call<List<KeyRow>>('GET', pathOf(['domains', domain, 'dkim']))
  if (call.json) await world.out(jsonText(rows))
  else if (rows.length === 0) await world.out(`Mail of ${domain} is not signed.\n`)
  else {
    const lines = rows.map(({ selector, algorithm, state, recordName }) => [
      selector,
      algorithm,
      state,
      recordName,
    ])
    const troubles = rows.flatMap(({ trouble }) => (trouble === null ? [] : [`${trouble}\n`]))
    await world.out(
      table(world, ['SELECTOR', 'ALGORITHM', 'STATE', 'RECORD'], lines) + troubles.join(''),
    )
  }
  return 0
}

export const addKey: Run = async (call, world) => {
  const [domain = '', selector = ''] = call.args
  const algorithm = optionOf(call, '--algorithm') ?? 'rsa'
  const path = pathOf(['domains', domain, 'dkim'])
  const row = await api(call).call<KeyRow>('POST', path, { selector, algorithm })
  return await show(call, world, row, 'Publish this record; mail is signed when the DNS has it.')
}

const act =
  (word: string, words: string): Run =>
  async (call, world) => {
    const [domain = '', selector = ''] = call.args
    const path = pathOf(['domains', domain, 'dkim', selector, word])
    return await show(call, world, await api(call).call<KeyRow>('POST', path), words)
  }

export const checkKey = act('check', 'It signs.')
export const retireKey = act('retire', 'It signs no more. Leave its record for a week.')

export const removeKey: Run = async (call, world) => {
  const [domain = '', selector = ''] = call.args
  await api(call).call('DELETE', pathOf(['domains', domain, 'dkim', selector]))
  const done = { domain, selector, removed: true }
  await world.out(call.json ? jsonText(done) : `${selector} of ${domain} is removed.\n`)
  return 0
}

function api(call: Call): Api {
  return new Api(dataDirOf(call))
}

async function show(call: Call, world: World, row: KeyRow, words: string): Promise<number> {
  if (call.json) await world.out(jsonText(row))
  else {
    const lines = facts([
      ['State', row.state],
      ['Name', row.recordName],
      ['TXT', row.record],
    ])
    await world.out(`${lines}${words}\n`)
  }
  return 0
}
