{
    'name': 'Lifeboat noise',
    'version': '1.0',
    'summary': 'Test module of Lifeboat: tries to reach the outside from a restored copy.',
    'author': 'Lifeboat',
    'category': 'Hidden/Tests',
    'license': 'Other OSI approved licence',
    'depends': ['base'],
    'installable': True,
}
