/** Set-up, sign-in, operators, and the tokens of scripts. */
import { RefusalError } from '../base/errors.ts'
import type { Operators } from '../store/operators.ts'
import type { ApiTokens } from '../store/tokens.ts'
import { mustAct } from './authorise.ts'
import type { Admin, ClusterAdmin } from './contract.ts'

type AccessPart = Pick<
  Admin,
  | 'needsSetup'
  | 'setupCodeMatches'
  | 'setup'
  | 'login'
  | 'authenticate'
  | 'logout'
  | 'operators'
  | 'addOperator'
  | 'removeOperator'
  | 'changePassword'
>
type TokensPart = Pick<
  ClusterAdmin,
  'apiTokens' | 'addApiToken' | 'removeApiToken' | 'authenticateToken'
>

export function accessPart({ operators }: { readonly operators: Operators }): AccessPart {
  return {
    needsSetup: () => operators.setupCode !== null,
    setupCodeMatches: (code, clientIp) => operators.setupCodeMatches(code, clientIp),
    setup: (input) => operators.setup(input),

    async login(name, password, clientIp) {
      const entered = await operators.login(name, password, clientIp)
      return { session: entered.token, author: { name: entered.name, role: entered.role } }
    },
    authenticate: (session) => operators.authenticate(session),
    logout: (session) => operators.logout(session),

    operators: () => operators.list(),
    async addOperator(author, name, password, role) {
      mustAct(author)
      await operators.add(author.name, { name, password, role })
    },
    removeOperator(author, name) {
      mustAct(author)
      operators.remove(author.name, name)
    },
    async changePassword(author, name, password) {
      // Everybody may change their own.
      if (author.name !== name && author.role !== 'admin') {
        throw new RefusalError(
          'forbidden',
          'name',
          'A viewer may change their own password only.',
          'Ask an operator with the role admin.',
        )
      }
      await operators.changePassword(author.name, name, password)
    },
  }
}

export function tokensPart({ tokens }: { readonly tokens: ApiTokens }): TokensPart {
  return {
    apiTokens: () => tokens.list(),
    addApiToken(author, { name, role, days = null }) {
      mustAct(author)
      return tokens.add(author.name, { name, role, days })
    },
    removeApiToken(author, id) {
      mustAct(author)
      tokens.remove(author.name, id)
    },
    authenticateToken: (token) => tokens.authenticate(token),
  }
}
